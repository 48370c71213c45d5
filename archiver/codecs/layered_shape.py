"""Sizes of the `layered` codec's networks, and what these are told of a base."""

from dataclasses import dataclass

import numpy as np

SCALES = (2, 4, 8)
TOLD = 3  # numbers that `conditions` tells of a base
CELL = 16  # pixels: of side symbols; pictures are padded to whole cells
# How far networks see beyond what they make, in cells of CELL, at the depth of the shipped weights.
ENCODER_REACH, DRAWN_REACH = 7, 3
SLICES, CONTEXT_WIDTH = 3, 48  # of the entropy model of side symbols
BANDS = 4  # of quality, 16 steps each: side symbols of a scale and a band share their statistics


@dataclass(frozen=True)
class Shape:
    """Width and depth."""

    fine: int = 64  # channels at 1/4
    coarse: int = 128  # channels at 1/8
    fine_blocks: int = 2  # before and after the coarse level, each
    coarse_blocks: int = 8
    deep: int = 192  # channels at 1/16
    deep_blocks: int = 0  # 0: no such level
    side: int = 0  # channels of side symbols, at 1/16; 0: none
    style: int = 0  # numbers that tell of the picture as a whole, at most
    style_cells: int = 0  # to each of them: small pictures tell the first alone; 0: all tell all
    # 1: at 1/8 and below, what is beyond the edges is as the edges are; 0: nothing is, which shows as lines near them.
    edges: int = 0


def style_count(shape: Shape, h: int, w: int) -> int:
    """How many numbers of a style are told of so many cells."""
    return min(shape.style, h * w // shape.style_cells) if shape.style_cells else shape.style


def conditions(
    scale: int, quality: int, bitstream_bytes: int, small_pixels: int
) -> tuple[float, float, float]:
    """What networks are told of a base: scale, quality, and log2 of the bits that a small pixel took."""
    bits = 8 * bitstream_bytes / small_pixels
    return (float(np.log2(scale)) - 2, quality / 50 - 1, float(np.clip(np.log2(bits) / 4, -2, 2)))


def band(scale: int, quality: int) -> int:
    """Which statistics side symbols have: 0 … 11."""
    return SCALES.index(scale) * BANDS + min(quality // 16, BANDS - 1)
