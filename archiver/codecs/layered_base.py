"""The base of the `layered` codec, an AV1 still of the small picture, and how it lies in a bitstream."""

from types import MappingProxyType

import numpy as np
from PIL import Image

from archiver.codecs.av1 import Chroma, encode_still
from archiver.codecs.layered_shape import CELL
from pipelines.codec import Pixels

# aom's own scale from 0 (slow) to 10. Against 6, 4 takes five times as long and saves 8 % of the bytes at equal error;
# 2 takes three times as long again, for 3 %.
SPEED = 4
# The quantisation matrices of "iq" coarsen high frequencies for eyes that see the base itself. Without them LPIPS was
# lower by .002 to .003 at equal bytes, with sharpness 4 by up to as much again (four and six photographs), though the
# enhancer of that day had learned from bases with matrices.
SETTINGS = MappingProxyType({"enable-qm": "0", "sharpness": "4"})
LONG = 255  # byte 0 of a bitstream whose length of side bytes takes three more


def padded(pixels_hwc: Pixels) -> Pixels:
    """To whole cells, edges repeated below and to the right."""
    height, width = pixels_hwc.shape[:2]
    return np.pad(pixels_hwc, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")


def reduced(pixels_hwc: Pixels, scale: int) -> Image.Image:
    """Whole cells -> the small picture, 1/scale a side."""
    height, width = pixels_hwc.shape[:2]
    return Image.fromarray(pixels_hwc).resize((width // scale, height // scale), Image.Resampling.LANCZOS)


def based(small: Image.Image, chroma: Chroma, quality: int) -> bytes:
    """The small picture's bitstream."""
    return encode_still(small, chroma, quality, SPEED, SETTINGS)


def join(side: bytes, base: bytes) -> bytes:
    """Both parts -> bitstream."""
    size = bytes([len(side)]) if len(side) < LONG else bytes([LONG]) + len(side).to_bytes(3, "big")
    return size + side + base


def split(bitstream: bytes) -> tuple[bytes, bytes]:
    """Inverse of `join`; ValueError where a bitstream ends before its base begins."""
    first, size = 1, bitstream[0] if bitstream else 0
    if size == LONG:
        first, size = 4, int.from_bytes(bitstream[1:4], "big")
    if len(bitstream) <= first + size:
        raise ValueError(f"a bitstream of {len(bitstream)} bytes, expected {size} side bytes and a base")
    return bitstream[first : first + size], bitstream[first + size :]
