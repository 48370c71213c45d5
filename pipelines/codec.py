"""What the pipelines ask of a codec. Every codec passes the suite in tests/codec_suite.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from manifests.records import CodecSpec, EncodedImage

Pixels = NDArray[np.uint8]  # (H, W, 3), sRGB, 0..255; a grey image has three equal channels


@dataclass(frozen=True)
class Picture:
    """One image as a codec sees it."""

    pixels_hwc: Pixels
    caption: str | None
    # (H, W), for codecs that can leave out parts of a picture: 0 code this pixel, 1 ... 254 draw it as that kind
    # of surface, 255 draw it as what the codec takes it for. None: code all.
    labels_hw: NDArray[np.uint8] | None = None


class Codec(Protocol):
    """Pictures <-> bitstreams of one spec. A loaded codec is used by one thread at a time.

    - `decode` returns pixels of exactly the picture's height and width, from 1x1 up.
    - Lossless parts come back exactly on every machine, thread count, device and batch size.
    - Any randomness is seeded from the image's own bitstream: an image decoded alone equals the same
      image decoded in any batch, under any name.
    - A picture that cannot be encoded, or a bitstream that is not one of this spec, raises ValueError
      that says what was found and what was expected. Nothing read from a bitstream is executed, and
      sizes are bounded by height and width before anything is allocated.
    - Where it reads captions, it is never handed a picture or a bitstream without one: pipelines see to that.
    """

    @property
    def spec(self) -> CodecSpec: ...

    @property
    def reads_caption(self) -> bool:
        """Whether `decode` draws from the caption: an image without one cannot be encoded, or decoded."""

    @property
    def batch(self) -> int:
        """How many pictures a call of `encode` or `decode` handles best."""

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]: ...

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]: ...


def says_something(caption: str | None) -> bool:
    """Whether there is a caption to decode from."""
    return caption is not None and bool(caption.strip())


# spec, {sha256: local safetensors file}, device ("cpu", "cuda:0") -> a loaded codec
LoadCodec = Callable[[CodecSpec, Mapping[str, Path], str], Codec]
