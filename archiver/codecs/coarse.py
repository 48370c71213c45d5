"""A spec -> its codec, decoding to the coarse pictures that its final ones are drawn on: fast, nothing invented."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.codecs import load_codec
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Codec, Picture, Pixels

if TYPE_CHECKING:
    from archiver.codecs.sprdiff import SprdiffCodec


@dataclass(frozen=True)
class CoarseCodec:
    """A `Codec` whose pictures are coarse ones; they say so, because its spec's name does."""

    spec: CodecSpec
    whole: Codec
    coarse: Callable[[EncodedImage], Pixels]
    batch: int = 1
    reads_caption: bool = False

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        return self.whole.encode(pictures)

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        return [self.coarse(image) for image in encoded]


def load_coarse(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> CoarseCodec:
    """As `load_codec`; ValueError for a codec that has no coarse pictures."""
    if spec.name not in ("sprdiff", "layered"):
        raise ValueError(f"codec {spec.name} has no coarse pictures; sprdiff and layered have")
    from archiver.codecs.layered import LayeredCodec
    from archiver.codecs.sprdiff import SprdiffCodec

    codec = load_codec(spec, weights, device)
    named = replace(spec, name=f"{spec.name}, its coarse picture")
    if isinstance(codec, LayeredCodec):  # no network has a hand in the base
        return CoarseCodec(replace(named, weights=()), codec, codec.decode_base)
    assert isinstance(codec, SprdiffCodec)
    return CoarseCodec(named, codec, partial(_coarse, codec))


def _coarse(codec: "SprdiffCodec", image: EncodedImage) -> Pixels:
    (pixels_hwc,) = codec.decode_coarse([image])
    return pixels_hwc
