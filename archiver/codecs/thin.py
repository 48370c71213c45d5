"""Pictures with a side shorter than a cell: stretched to one, and shrunk again.

Padded by repeating their edges, they would be lost in what was added: of a picture of three rows, thirteen of sixteen
were its last one, and its colours became that row's.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from archiver.codecs.specs import check_size
from manifests.records import EncodedImage
from pipelines.codec import Picture, Pixels

T = TypeVar("T", bound=np.generic)


def is_thin(height: int, width: int, cell: int) -> bool:
    """Whether a side is shorter than a cell, of `cell` pixels."""
    return min(height, width) < cell


def encode_stretched(encode: Callable[[Picture], EncodedImage], picture: Picture, cell: int) -> EncodedImage:
    """What `encode` makes of a picture whose sides are `cell` pixels or longer; with the size of the given one."""
    height, width = picture.pixels_hwc.shape[:2]
    labels_hw = picture.labels_hw
    whole = replace(
        picture,
        pixels_hwc=stretched(picture.pixels_hwc, cell),
        labels_hw=None if labels_hw is None else stretched(labels_hw, cell),
    )
    return replace(encode(whole), height=height, width=width)


def decode_shrunk(decode: Callable[[EncodedImage], Pixels], encoded: EncodedImage, cell: int) -> Pixels:
    """Inverse of `encode_stretched`."""
    check_size(encoded.height, encoded.width)
    whole = replace(encoded, height=max(encoded.height, cell), width=max(encoded.width, cell))
    return shrunk(decode(whole), encoded.height, encoded.width)


def stretched(values: NDArray[T], cell: int) -> NDArray[T]:
    """(H, W, ...): rows and columns repeated, each about as often, where there are fewer than `cell`.

    ValueError, before memory is taken, where that is no size of a picture.
    """
    height, width = values.shape[:2]
    check_size(height, width)
    check_size(max(height, cell), max(width, cell))
    for axis in (0, 1):
        if values.shape[axis] < cell:
            values = values.take(_places(values.shape[axis], cell), axis)
    return values


def shrunk(pixels_hwc: Pixels, height: int, width: int) -> Pixels:
    """Of the size that was stretched: each row and column is the mean of what it was repeated to."""
    for axis, length in enumerate((height, width)):
        if pixels_hwc.shape[axis] == length:
            continue
        places = _places(length, pixels_hwc.shape[axis])
        sums = np.add.reduceat(pixels_hwc, np.searchsorted(places, np.arange(length)), axis, dtype=np.int64)
        counts = np.expand_dims(np.bincount(places), tuple(other for other in range(3) if other != axis))
        pixels_hwc = ((2 * sums + counts) // (2 * counts)).astype(np.uint8)
    return pixels_hwc


def _places(length: int, longer: int) -> NDArray[np.int64]:
    """Which of `length` rows each of `longer` ones repeats."""
    places: NDArray[np.int64] = np.arange(longer) * length // longer
    return places
