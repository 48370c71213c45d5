"""The `layered` codec's decoder: what its enhancer is given, and the picture it draws of that, tile by tile."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from archiver.codecs.drawing import noise, normal
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import CELL, DRAWN_REACH
from archiver.codecs.networks import levels_of
from archiver.codecs.tiles import Tile, tiles
from pipelines.codec import Pixels

# Legend of suffixes: B batch (always 1 here), C channels; H, W pixels, padded; h, w cells of CELL x CELL pixels.

TILE = 48  # cells a side that are seen and drawn at once: about 0.25 GB
# Cells: what decoding mirrors beyond a picture's edges, near which networks draw lines. As much at the edges of crops
# counts nothing in training.
MARGIN = 1

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Given:
    """Of a picture and of MARGIN cells around it, mirrored."""

    scale: int
    small: Tensor  # (1, 3, H / scale, W / scale) in [-1, 1]
    side: Tensor | None  # (1, C, h, w): side symbols, times their step
    told: Tensor  # (1, TOLD), without the style
    quarter: Tensor  # (H / 4, W / 4), see `noise`
    full: Tensor  # (H, W), too


def floats(levels_hwc: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Levels -> (1, 3, ...) in [-1, 1], channels last."""
    levels = torch.from_numpy(levels_hwc).to(device).permute(2, 0, 1)[None]
    return (levels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def given_of(
    base: bytes,
    shown: Image.Image,
    told: Tensor,
    symbols_chw: NDArray[np.int8] | None,
    scale: int,
    step: float,
) -> Given:
    """Of a base and what it shows; noise is keyed by the base."""
    side, device = None, told.device
    if symbols_chw is not None:
        symbols = torch.from_numpy(mirrored(symbols_chw, MARGIN, (1, 2)))
        side = symbols[None].float().to(device) * step
    height, width = (length * scale + 2 * MARGIN * CELL for length in (shown.height, shown.width))
    quarter, full = (torch.from_numpy(values).to(device) for values in noise(base, height, width))
    small_hwc = mirrored(np.array(shown.convert("RGB")), MARGIN * CELL // scale, (0, 1))
    return Given(scale, floats(small_hwc, device), side, told, quarter, full)


def draw(enhancer: Enhancer, given: Given, style: NDArray[np.int8]) -> Pixels:
    """The picture, padded, without its margin; an empty style: none is told."""
    small, scale = given.small, given.scale
    told = torch.cat((given.told, torch.from_numpy(style)[None].to(given.told)), 1)
    h, w = (length // CELL for length in given.full.shape)

    @lru_cache(maxsize=1)  # a small picture is one tile, which is begun once
    def begun(tile: Tile) -> Tensor:
        grain = normal(tile.cut(given.quarter, CELL // 4))[None, None]
        return enhancer.begun(tile.cut(small, CELL // scale), scale, told, grain)

    size = (1, enhancer.shape.coarse, 2 * h, 2 * w)
    coarse = torch.empty(size, device=small.device, memory_format=torch.channels_last)
    parts = tiles(h, w, TILE, DRAWN_REACH)
    for tile in parts:
        lowered = enhancer.lowered(begun(tile))
        coarse[..., tile.pixel_rows(2), tile.pixel_columns(2)] = tile.inner(lowered, 2)
    coarse = enhancer.thought(coarse, given.side, told)
    made_hwc = np.empty((h * CELL, w * CELL, 3), dtype=np.uint8)
    for tile in parts:
        seen = tile.cut(small, CELL // scale)
        grain = normal(tile.cut(given.full, CELL))[None, None]
        drawn = enhancer.drawn(begun(tile), tile.cut(coarse, 2), seen, scale, told, grain)
        made_hwc[tile.pixel_rows(CELL), tile.pixel_columns(CELL)] = levels_of(tile.inner(drawn, CELL))
    del coarse  # so much memory is best gone before more is taken
    begun.cache_clear()
    inner = slice(MARGIN * CELL, -MARGIN * CELL)
    return np.ascontiguousarray(made_hwc[inner, inner])


def mirrored(values: NDArray[T], margin: int, axes: tuple[int, int]) -> NDArray[T]:
    """With a margin before and after along two axes; where that is more than there is, mirrored again and again."""
    margins = [(margin, margin) if axis in axes else (0, 0) for axis in range(values.ndim)]
    return np.pad(values, margins, "symmetric")
