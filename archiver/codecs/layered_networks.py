"""The networks of the `layered` codec: a picture and its base -> side symbols; base and symbols -> a picture.

Both are inverted residual blocks without normalisation (after MobileNetV2; no statistics of the picture, so tiles equal
the whole), told scale and quality of the base. The enhancer works at 1/4, 1/8 and 1/16 of the size and ends in two
sub-pixel doublings (Shi et al., CVPR 2016) that also see the enlarged base.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent, enlarged, joined
from archiver.codecs.latent_model import Integers

# Legend of suffixes: B batch, C channels; H, W pixels; h, w cells, of 4x4 pixels where nothing else is said.

SCALES = (2, 4, 8)
CELL = 16  # pixels: of side symbols; pictures are padded to whole cells
# How far networks see beyond what they make, in cells of CELL, at the depth of the shipped weights.
ENCODER_REACH, DRAWN_REACH = 7, 3
ROWS = 64  # of 8 or 16 pixels, that a block is given at once
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
    # 1: at 1/8 and below, what is beyond the edges is as the edges are; 0: nothing is, which shows as lines near them.
    edges: int = 0


class Block(nn.Module):
    """(B, C, h, w) -> the same: 1x1 to twice the channels, depthwise 3x3, 1x1; told the condition.

    `edges`: what the 3x3 sees beyond the edges are the edges, repeated, and not zeros.
    """

    def __init__(self, channels: int, condition: int, edges: bool = False) -> None:
        super().__init__()
        self.edges = edges
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.told = nn.Linear(condition, 2 * channels)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)
        with torch.no_grad():
            self.narrow.weight.mul_(0.3)

    def forward(self, x_bchw: Tensor, condition: Tensor) -> Tensor:
        told = self.told(condition)
        if len(told) == 1:  # a part of the bias then: one pass less over the widest features
            wide = F.conv2d(x_bchw, self.widen.weight, self.widen.bias + told[0])
        else:
            wide = self.widen(x_bchw) + told[:, :, None, None].to(x_bchw.dtype)
        wide = bent(wide)
        mixed = self.mix(wide)
        if self.edges:
            _add_edges(mixed, wide, self.mix.weight)
        out: Tensor = x_bchw + self.narrow(bent(mixed))
        return out


def _add_edges(mixed: Tensor, x_bchw: Tensor, weight: Tensor) -> None:
    """What a depthwise 3x3 convolution lacks where it was given zeros beyond the edges instead of the edges; in place.

    Padding itself would copy all of the widest features.
    """

    def seen(line: Tensor, kernel: Tensor) -> Tensor:
        return F.conv1d(line, kernel[:, None], groups=len(weight))

    rows, columns = weight[:, 0].unbind(1), weight[:, 0].unbind(2)
    for place in (0, -1):  # corners are a part of the rows
        mixed[:, :, place] += seen(F.pad(x_bchw[:, :, place], (1, 1), mode="replicate"), rows[place])
    for place in (0, -1):
        mixed[..., place] += seen(F.pad(x_bchw[..., place], (1, 1)), columns[place])


def in_rows(block: nn.Module, x_bchw: Tensor, condition: Tensor) -> Tensor:
    """What a block makes; where nothing learns, in place and of ROWS rows at a time, to save memory."""
    height = x_bchw.shape[2]
    if height <= ROWS or torch.is_grad_enabled():
        whole: Tensor = block(x_bchw, condition)
        return whole
    above: list[Tensor] = []  # the row before, as it was
    for top in range(0, height, ROWS):
        end = min(height, top + ROWS)
        seen = torch.cat((*above, x_bchw[:, :, top : end + 1]), 2)
        made, first = block(seen, condition), len(above)
        above = [x_bchw[:, :, end - 1 : end].clone()]
        x_bchw[:, :, top:end] = made[:, :, first : first + end - top]
    return x_bchw


def _condition(told: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())


class Deep(nn.Module):
    """The level at 1/16: features at 1/8 (B, coarse, 2 h, 2 w), side symbols (B, side, h, w) -> features, added to.

    Where nothing learns, in place.
    """

    def __init__(self, shape: Shape, condition: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(shape.coarse, shape.deep, 2, stride=2)
        self.side = (
            nn.Conv2d(
                shape.side, shape.deep, 3, padding=1, padding_mode="replicate" if shape.edges else "zeros"
            )
            if shape.side
            else None
        )
        self.blocks = nn.ModuleList(
            Block(shape.deep, condition, bool(shape.edges)) for _ in range(shape.deep_blocks)
        )
        self.up = nn.Conv2d(shape.deep, 4 * shape.coarse, 1)
        with torch.no_grad():
            self.up.weight.mul_(0.1)

    def forward(self, coarse: Tensor, side: Tensor | None, condition: Tensor) -> Tensor:
        x = self.down(coarse)
        if self.side is not None:
            x = x + self.side(side)
        for block in self.blocks:
            x = in_rows(block, x, condition)
        if torch.is_grad_enabled():
            return coarse + F.pixel_shuffle(self.up(x), 2)
        for part, known in zip(torch.split(x, ROWS, 2), torch.split(coarse, 2 * ROWS, 2), strict=True):
            known += F.pixel_shuffle(self.up(part), 2)
        return coarse


class Enhancer(nn.Module):
    """Small pictures and side symbols -> full ones: (B, 3, H, W) around [-1, 1], H and W whole cells."""

    CONDITION = 32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.side and not shape.deep_blocks:
            raise ValueError(f"{shape.side} planes of side symbols and no level at 1/16 to read them")
        self.shape = shape
        fine, coarse, told = shape.fine, shape.coarse, self.CONDITION
        self.condition = _condition(told)
        self.stems = nn.ModuleDict(
            {str(scale): nn.Conv2d((12 if scale == 2 else 3) + 1, fine, 3, padding=1) for scale in SCALES}
        )
        self.before = nn.ModuleList(Block(fine, told) for _ in range(shape.fine_blocks))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.inside = nn.ModuleList(
            Block(coarse, told, bool(shape.edges)) for _ in range(shape.coarse_blocks)
        )
        self.deep = Deep(shape, told) if shape.deep_blocks else None
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.ModuleList(Block(fine, told) for _ in range(shape.fine_blocks))
        self.double1 = nn.Conv2d(fine, 4 * 32, 1)
        self.at_half = nn.Conv2d(32 + 3, 32, 3, padding=1)
        self.double2 = nn.Conv2d(32, 4 * 16, 1)
        self.at_full = nn.Conv2d(16 + 3 + 1, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
        self.observer = Observer(shape) if shape.side else None
        # The entropy model of side symbols; training leaves it empty, `archiver.training.layered.fitted` fills it.
        self.entropy = (
            Integers(shape.side, SLICES, len(SCALES) * BANDS, CONTEXT_WIDTH) if shape.side else None
        )

    def forward(
        self,
        small: Tensor,
        side: Tensor | None,
        scale: int,
        told: Tensor,
        noise_hw: Tensor,
        noise_HW: Tensor,
    ) -> Tensor:
        """`small` (B, 3, H/scale, W/scale) in [-1, 1]; `side` (B, side, H/16, W/16), whole numbers from -15 to 15.

        `told` (B, 3), see `conditions`; `noise_hw` (B, 1, H/4, W/4) and `noise_HW` (B, 1, H, W) of unit variance.
        """
        x = self.begun(small, scale, told, noise_hw)
        return self.drawn(x, self.thought(self.lowered(x), side, told), small, scale, told, noise_HW)

    def begun(self, small: Tensor, scale: int, told: Tensor, noise_hw: Tensor) -> Tensor:
        """Features at 1/4: (B, fine, H/4, W/4)."""
        condition = self.condition(told)
        x = F.pixel_unshuffle(small, 2) if scale == 2 else small
        if scale == 8:
            x = enlarged(small, 2)
        features: Tensor = self.stems[str(scale)](joined(x, noise_hw))
        for block in self.before:
            features = block(features, condition)
        return features

    def lowered(self, x: Tensor) -> Tensor:
        """Features at 1/8 that `thought` begins with; with `begun` it sees DRAWN_REACH cells around."""
        coarse: Tensor = self.down(x)
        return coarse

    def thought(self, coarse: Tensor, side: Tensor | None, told: Tensor) -> Tensor:
        """Features at 1/8, which see all of the picture that so many blocks reach; in place, where nothing learns."""
        condition = self.condition(told)
        for number, block in enumerate(self.inside):
            if self.deep is not None and number == len(self.inside) // 2:
                coarse = self.deep(coarse, side, condition)
            coarse = in_rows(block, coarse, condition)
        return coarse

    def drawn(
        self, x: Tensor, coarse: Tensor, small: Tensor, scale: int, told: Tensor, noise_HW: Tensor
    ) -> Tensor:
        """The picture, of features at 1/4 and 1/8; with `begun` it sees DRAWN_REACH cells around."""
        condition = self.condition(told)
        x = x + F.pixel_shuffle(self.up(coarse), 2)
        for block in self.after:
            x = block(x, condition)
        x = bent(F.pixel_shuffle(self.double1(x), 2))
        x = joined(x, enlarged(small, scale // 2))  # apart: what was joined is let go before the next layer
        x = bent(self.at_half(x))
        x = bent(F.pixel_shuffle(self.double2(x), 2))
        base = enlarged(small, scale)
        x = joined(x, base, noise_HW)
        x = bent(self.at_full(x))
        out: Tensor = base + self.out(x).float()
        return out


class Observer(nn.Module):
    """Original and enlarged base (B, 3, H, W) -> side symbols (B, side, H/16, W/16), not yet rounded.

    Beside the blocks, the first symbols begin as plain measures of what the base lost. From random weights symbols said
    nothing that helped, the enhancer did not listen, and they fell silent.
    """

    CONDITION = 32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        fine, coarse, deep, told = shape.fine, shape.coarse, shape.deep, self.CONDITION
        self.condition = _condition(told)
        self.stem = nn.Conv2d(96, fine, 3, padding=1)
        self.fine = nn.ModuleList(Block(fine, told) for _ in range(1))
        self.down1 = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse = nn.ModuleList(Block(coarse, told) for _ in range(2))
        self.down2 = nn.Conv2d(coarse, deep, 2, stride=2)
        self.deep = nn.ModuleList(Block(deep, told) for _ in range(3))
        self.out = nn.Conv2d(deep, shape.side, 1)
        self.measured = nn.Conv2d(2 * MEASURES, shape.side, 1, bias=False)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.measured.weight.zero_()
            for number, foreseen in zip(range(shape.side), _FORESEEN, strict=False):
                self.measured.weight[number, number] = 0.5
                self.measured.weight[number, MEASURES + number] = -0.5 * foreseen

    def forward(self, pixels: Tensor, base: Tensor, told: Tensor) -> Tensor:
        condition = self.condition(told)
        x = bent(self.stem(F.pixel_unshuffle(joined(pixels - base, base), 4)))
        for block in self.fine:
            x = block(x, condition)
        x = self.down1(x)
        for block in self.coarse:
            x = block(x, condition)
        x = self.down2(x)
        for block in self.deep:
            x = block(x, condition)
        known = torch.cat((measures(pixels - base), measures(base)), 1)
        out: Tensor = self.out(x).float() + self.measured(known).float()
        return out


MEASURES = 5
# Over photographs and their bases at half and quarter size: mean and deviation of what is lost, and how much of it the
# same measures of the base foresee (least squares).
_USUAL = ((-4.49, 1.58), (-0.05, 0.45), (-0.44, 0.62), (-0.07, 0.72), (0.01, 0.35))
_FORESEEN = (0.64, 0.15, 0.2, 0.33, 0.24)


def measures(lost: Tensor) -> Tensor:
    """What is in cells of pixels: the logarithm of luma's strength, and how it changes over octaves and directions.

    (B, 3, H, W) in [-2, 2] -> (B, MEASURES, H/16, W/16), of about zero mean and deviation 1.5.
    """
    red, green, blue = lost.unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    halves = [luma, *(F.avg_pool2d(luma, side) for side in (2, 4, 8))]
    octaves = [
        _strength(finer - F.interpolate(coarser, scale_factor=2, mode="nearest"), side)
        for finer, coarser, side in zip(halves[:-1], halves[1:], (CELL, CELL // 2, CELL // 4), strict=True)
    ]
    half = halves[1]
    across, down = half[..., 1:] - half[..., :-1], half[..., 1:, :] - half[..., :-1, :]
    falling, rising = half[..., 1:, 1:] - half[..., :-1, :-1], half[..., 1:, :-1] - half[..., :-1, 1:]
    around = [
        _strength(F.pad(x, (0, half.shape[3] - x.shape[3], 0, half.shape[2] - x.shape[2])), CELL // 2)
        for x in (across, down, falling, rising)
    ]
    fine, middle, coarse = octaves
    found = torch.cat((fine, middle - fine, coarse - middle, around[0] - around[1], around[2] - around[3]), 1)
    mean, deviation = (found.new_tensor(values)[:, None, None] for values in zip(*_USUAL, strict=True))
    return (found - mean) * (1.5 / deviation)


def _strength(x: Tensor, side: int) -> Tensor:
    """Logarithm of the root of the mean square in cells of side x side."""
    return 0.5 * torch.log2(F.avg_pool2d(x.square(), side) + 4e-6)


def conditions(
    scale: int, quality: int, bitstream_bytes: int, small_pixels: int
) -> tuple[float, float, float]:
    """What networks are told of a base: scale, quality, and log2 of the bits that a small pixel took."""
    bits = 8 * bitstream_bytes / small_pixels
    return (float(np.log2(scale)) - 2, quality / 50 - 1, float(np.clip(np.log2(bits) / 4, -2, 2)))


def band(scale: int, quality: int) -> int:
    """Which statistics side symbols have: 0 … 11."""
    return SCALES.index(scale) * BANDS + min(quality // 16, BANDS - 1)
