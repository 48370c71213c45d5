"""The `avif` codec: an AV1 still picture at reduced size.

    pixels ->[1/scale, Lanczos]-> smaller pixels ->[AV1]-> frame ->[strip]-> bitstream

The conventional codec: no weights, no GPU, decodable for as long as anyone can decode AV1. The bitstream is
the one of archiver/codecs/av1.py: a header byte, then the AV1 frame of a picture of ceil(height / scale) x
ceil(width / scale) pixels. Pictures with three equal channels are coded grey, 4:0:0. Decoding enlarges with
Pillow's Lanczos filter on 8-bit RGB (or grey).

Parameters of the spec: scale (1 to 64) decides how a bitstream is read; quality (0 to 99, libavif's) and
chroma ("4:2:0" or "4:4:4", for pictures in colour) how it was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from archiver.codecs.av1 import decode_still, encode_still
from archiver.codecs.specs import check_size, check_spec
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

NAME = "avif"
VERSION = 1
# aom's own scale from 0 (slow) to 10. Against 6, 5 takes four times as long for 0.2 dB at equal bytes;
# 7 takes half as long and loses 0.5 dB.
SPEED = 6
COARSEST_SCALE = 64


def avif_spec(scale: int, quality: int, chroma: Literal["4:2:0", "4:4:4"] = "4:2:0") -> CodecSpec:
    return CodecSpec(NAME, VERSION, {"scale": scale, "quality": quality, "chroma": chroma})


@dataclass(frozen=True)
class AvifCodec:
    """A `Codec`; made by `load_avif`."""

    spec: CodecSpec
    scale: int
    quality: int
    chroma: Literal["4:2:0", "4:4:4"]
    reads_caption: bool = False
    batch: int = 1

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        return [self._encoded(picture) for picture in pictures]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        return [self._decoded(image) for image in encoded]

    def _encoded(self, picture: Picture) -> EncodedImage:
        pixels_hwc = picture.pixels_hwc
        height, width = pixels_hwc.shape[:2]
        check_size(height, width)
        grey = not np.any(pixels_hwc != pixels_hwc[..., :1])
        image = Image.fromarray(np.ascontiguousarray(pixels_hwc[..., 0]) if grey else pixels_hwc)
        small = _resized(image, _reduced(height, self.scale), _reduced(width, self.scale))
        bitstream = encode_still(small, "4:0:0" if grey else self.chroma, self.quality, SPEED)
        return EncodedImage(bitstream, picture.caption, height, width)

    def _decoded(self, encoded: EncodedImage) -> Pixels:
        height, width = encoded.height, encoded.width
        check_size(height, width)
        small = decode_still(encoded.bitstream, _reduced(height, self.scale), _reduced(width, self.scale))
        return np.array(_resized(small, height, width).convert("RGB"), dtype=np.uint8)


def load_avif(spec: CodecSpec) -> AvifCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    if spec.weights:
        raise ValueError(f"codec {NAME} with weights {spec.weights}, expected none")
    params = dict(spec.params)
    scale, quality, chroma = (params.pop(name, None) for name in ("scale", "quality", "chroma"))
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected scale, quality and chroma")
    if type(scale) is not int or not 1 <= scale <= COARSEST_SCALE:
        raise ValueError(f"scale {scale!r}, expected 1 to {COARSEST_SCALE}")
    if type(quality) is not int or not 0 <= quality <= 99:
        raise ValueError(f"quality {quality!r}, expected 0 to 99")
    if chroma != "4:2:0" and chroma != "4:4:4":
        raise ValueError(f"chroma {chroma!r}, expected 4:2:0 or 4:4:4")
    return AvifCodec(spec, scale, quality, "4:2:0" if chroma == "4:2:0" else "4:4:4")


def _reduced(side: int, scale: int) -> int:
    return -(-side // scale)


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
