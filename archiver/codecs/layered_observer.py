"""The `layered` codec's encoder: a picture and its base -> side symbols."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent, joined
from archiver.codecs.layered_blocks import Block, Condition
from archiver.codecs.layered_shape import CELL, Shape

# Legend of suffixes: B batch; H, W pixels.


class Observer(nn.Module):
    """Original and enlarged base (B, 3, H, W) -> side symbols (B, side, H/16, W/16), not yet rounded.

    Beside the blocks, the first symbols begin as plain measures of what the base lost. From random weights symbols said
    nothing that helped, the enhancer did not listen, and they fell silent.
    """

    CONDITION = 32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        fine, coarse, deep, told = shape.fine, shape.coarse, shape.deep, self.CONDITION
        self.condition = Condition(told)
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
