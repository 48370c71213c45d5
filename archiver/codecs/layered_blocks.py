"""What the `layered` codec's networks are made of: inverted residual blocks (after MobileNetV2), told a condition.

Without normalisation: no statistics of the picture, so tiles equal the whole.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent
from archiver.codecs.layered_shape import TOLD

# Legend of suffixes: B batch, C channels; h, w cells.

ROWS = 64  # of 8 or 16 pixels, that a block is given at once


class Block(nn.Module):
    """(B, C, h, w) -> the same: 1x1 to twice the channels, depthwise 3x3, 1x1; told the condition, and a style.

    `edges`: what the 3x3 sees beyond the edges are the edges, repeated, and not zeros.
    """

    def __init__(self, channels: int, condition: int, edges: bool = False, style: int = 0) -> None:
        super().__init__()
        self.edges = edges
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.told = nn.Linear(condition, 2 * channels)
        self.styled = nn.Linear(style, 2 * channels, bias=False) if style else None
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)
        if self.styled is not None:
            nn.init.zeros_(self.styled.weight)
        with torch.no_grad():
            self.narrow.weight.mul_(0.3)

    def forward(self, x_bchw: Tensor, condition: Tensor) -> Tensor:
        """`condition` (B, condition), and perhaps the first numbers of a style behind it."""
        told = self.told(condition[:, : self.told.in_features])
        style = condition[:, self.told.in_features :]
        if self.styled is not None and style.shape[1]:
            told = told + F.linear(style, self.styled.weight[:, : style.shape[1]])
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


class Condition(nn.Sequential):
    """What `conditions` tells, and perhaps a style, (B, TOLD + numbers) -> (B, told + numbers)."""

    def __init__(self, told: int) -> None:
        super().__init__(nn.Linear(TOLD, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())

    def forward(self, told: Tensor) -> Tensor:
        found = super().forward(told[:, :TOLD])  # type: ignore[no-untyped-call]
        return torch.cat((found, told[:, TOLD:]), 1)
