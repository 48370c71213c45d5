"""What decoders draw with: enlarging, noise that is the same for ever, colours that stay those of a small picture."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipelines.codec import Pixels

# Legend of suffixes: B batch; H, W pixels; h, w cells of 4x4 pixels; s small pixels.

CALM = 32  # pixels: over squares of so many a side, colours are those of the small picture
GRID = 16  # pixels a side of a cell: all strides of `gan` and `layered` divide it
AREA = 4  # cells a side of an area, over which with those around it a grid is looked for
CHANCE = 16  # cells: what so many have in common counts half, since some of it is chance
EVERYWHERE = 1 << 20  # cells a side: the whole picture is one area


def bent(x: Tensor) -> Tensor:
    """The networks' non-linearity, in place: a leaky ReLU, half as costly on CPUs as SiLU."""
    return F.leaky_relu_(x, 0.2)


def joined(*parts: Tensor) -> Tensor:
    """(B, C, H, W) each, of one size -> concatenated by channels; channels last, where the first one is."""
    if parts[0].is_contiguous(memory_format=torch.channels_last):
        parts = tuple(_channels_last(part) for part in parts)
    return torch.cat(parts, 1)


def _channels_last(part: Tensor) -> Tensor:
    """Of one part in another layout `torch.cat` makes a whole in that, which convolutions then convert back: at full
    size that took as long as the convolution."""
    batch, channels, height, width = part.shape
    if channels == 1:  # its strides suit both layouts
        return part.reshape(batch, height, width, 1).permute(0, 3, 1, 2)
    return part.contiguous(memory_format=torch.channels_last)


def enlarged(small: Tensor, factor: int) -> Tensor:
    """Bicubic; (B, 3, s, s) -> `factor` times the size."""
    if factor == 1:
        return small
    return F.interpolate(small, scale_factor=factor, mode="bicubic", align_corners=False)


def true_to_base(
    made_hwc: Pixels, small: Image.Image, scale: int, area: int = AREA, chance: int = CHANCE
) -> Pixels:
    """The picture, of whole cells, in place: networks drift, and leave grids.

    With the base's own colours in the mean of each CALM x CALM pixels, and without what the cells of GRID x GRID pixels
    around repeat and the base's do not: around are those of an area of `area` cells a side and of the areas next to it,
    and what n of them repeat counts n / (n + chance).
    """
    height, width = made_hwc.shape[:2]
    area = min(area, max(height, width) // GRID)
    shown = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    colours = np.asarray(small.reduce(CALM // scale)).astype(np.float32)
    return true_to(made_hwc, colours, CALM, _grids(made_hwc, shown, area, chance), area)


def _grids(made_hwc: Pixels, shown_hwc: Pixels, area: int, chance: int) -> NDArray[np.float32]:
    """(areas, GRID, areas, GRID, 3) in levels, around 0: what the cells of an area and of those around it repeat.

    Sums are of whole numbers, exact in any order.
    """
    h, w = (side // GRID for side in made_hwc.shape[:2])
    tops, lefts = np.arange(0, h, area), np.arange(0, w, area)
    sums = np.zeros((len(tops), GRID, len(lefts), GRID, 3), dtype=np.int32)
    for row in range(h):
        lines = slice(row * GRID, row * GRID + GRID)
        apart = (made_hwc[lines].astype(np.int32) - shown_hwc[lines]).reshape(GRID, w, GRID, 3)
        sums[row // area] += np.add.reduceat(apart, lefts, axis=1)
    repeated = _with_neighbours(_with_neighbours(sums, 0), 2)
    down = _with_neighbours(np.diff(np.append(tops, h)), 0)
    across = _with_neighbours(np.diff(np.append(lefts, w)), 0)
    cells = (down[:, None] * across)[:, None, :, None, None]
    around = repeated - repeated.mean((1, 3), keepdims=True)
    return np.asarray(around / (cells + chance), dtype=np.float32)


def _with_neighbours(values: NDArray[np.integer], axis: int) -> NDArray[np.integer]:
    """Each one's sum with the one before and the one after it."""
    padded = np.pad(values, [(int(axis == other),) * 2 for other in range(values.ndim)])
    count = values.shape[axis]
    neighbours = [padded.take(range(shift, shift + count), axis) for shift in range(3)]
    return np.asarray(np.add.reduce(neighbours))


def true_to(
    made_hwc: Pixels,
    colours: NDArray[np.float32],
    side: int,
    grids: NDArray[np.float32] | None = None,
    area: int = AREA,
) -> Pixels:
    """The picture, in place, with the given mean colours in its squares of side x side pixels, blended between them.

    `grids` (areas, GRID, areas, GRID, 3) are taken off the cells, where given; areas are of `area` cells a side.
    """
    height, width = made_hwc.shape[:2]
    drift = np.asarray(Image.fromarray(made_hwc).reduce(side)).astype(np.float32) - colours
    squares = (0, 0, width / side, height / side)  # the last row and column of them may not be whole
    for channel in range(3):
        plane = Image.fromarray(np.ascontiguousarray(drift[..., channel]))
        smooth = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR, box=squares))
        corrected = np.ascontiguousarray(made_hwc[..., channel] - smooth)
        for place, grid in enumerate([] if grids is None else grids[..., channel]):
            rows = corrected[place * area * GRID :][: area * GRID]
            cells = rows.reshape(-1, GRID, width // GRID, GRID)
            cells -= grid.repeat(area, axis=1)[:, : width // GRID]
        np.rint(corrected, out=corrected)
        made_hwc[..., channel] = np.clip(corrected, 0, 255, out=corrected)
    return made_hwc


def noise(bitstream: bytes, height: int, width: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Sums of four random bytes for each cell of 4x4 pixels, and for each pixel; see `normal`."""
    key = int.from_bytes(hashlib.blake2b(bitstream, digest_size=16).digest(), "little")
    cells, pixels = height // 4 * (width // 4), height * width
    # A bit generator's raw numbers stay the same for ever; the distributions that NumPy makes of them may not.
    raw = np.random.Philox(key=key).random_raw(-(-(cells + pixels) // 2)).astype("<u8").view("<u4")
    sums = sum((raw >> shift & 255).astype(np.int16) for shift in (0, 8, 16, 24))
    assert isinstance(sums, np.ndarray)
    return sums[:cells].reshape(height // 4, -1), sums[cells : cells + pixels].reshape(height, -1)


def normal(sums: Tensor) -> Tensor:
    """Nearly normal numbers of unit variance from sums of four bytes (mean 510, variance 4 (256^2 - 1) / 12)."""
    unit: Tensor = (sums.float() - 510) / (65535 / 3) ** 0.5
    return unit
