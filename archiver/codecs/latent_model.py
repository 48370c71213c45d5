"""The entropy model of latent_codec.py as it is trained, and frozen in whole numbers.

Training need not know of whole numbers: they are finer than what it could tell.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from archiver.codecs.label_maps import TOTAL

# Legend of suffixes: B batch, C channels of symbols; h, w cells.

LARGEST = 15  # symbols are -15 … 15
SYMBOLS = 2 * LARGEST + 1
PHASES = 3
FINE = 8  # means are eighths of a symbol
SCALES = 32  # of the logistic distribution, 2^-4 … 2^3
LOWEST, HIGHEST = -4.0, 3.0
REACH = FINE * 2 * LARGEST + FINE // 2  # the farthest that a border between symbols lies from a mean
WEIGHT_BITS, ACTIVATION_BITS = 12, 8
LIMIT = (1 << 15) - 1


class ContextModel(nn.Module):
    """The network as it is trained: symbols (B, C, h, w) -> means and scale indices of the same shape."""

    def __init__(self, channels: int, slices: int, rates: int, width: int) -> None:
        super().__init__()
        if channels % slices:
            raise ValueError(f"{channels} channels in {slices} slices")
        self.slices, self.size = slices, channels // slices
        self.see = nn.ModuleList(
            nn.Conv2d(channels + 1, width, 3, padding=1, bias=False) for _ in range(slices)
        )
        self.told = nn.Parameter(torch.zeros(slices, PHASES, rates, width))
        self.think = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(slices))
        self.say = nn.ModuleList(nn.Conv2d(width, 2 * self.size, 1) for _ in range(slices))
        for layer in self.say:
            nn.init.constant_(layer.get_parameter("bias")[self.size :], SCALES / 2)

    def forward(self, symbols: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """`rates` (B,): which of the rates each picture has."""
        batch, _, h, w = symbols.shape
        phases = torch.from_numpy(phases_of(h, w)).to(symbols.device)
        inside = torch.ones_like(symbols[:, :1])
        means, scales = [], []
        for number in range(self.slices):
            first, end = number * self.size, (number + 1) * self.size
            seen = []
            for phase in range(PHASES):
                known = symbols * 0
                known[:, :first] = symbols[:, :first]
                known[:, first:end] = symbols[:, first:end] * (phases < phase)
                seen.append(torch.cat((known, inside), 1))
            x = (
                self.see[number](torch.cat(seen))
                + self.told[number][:, rates].flatten(0, 1)[:, :, None, None]
            )
            said = self.say[number](_bent(self.think[number](_bent(x))))
            mine = torch.stack([phases == phase for phase in range(PHASES)])[:, None, None]
            mean, scale = (said.unflatten(0, (PHASES, batch)) * mine).sum(0).split(self.size, 1)
            means.append(mean)
            scales.append(scale)
        bounded: Tensor = _Bounded.apply(torch.cat(scales, 1))  # type: ignore[no-untyped-call]
        return torch.cat(means, 1), bounded


class _Bounded(torch.autograd.Function):
    """Scale indices -> the nearest in 0 … SCALES - 1; the slope is 1, but 0 where it would lead farther out.

    With a slope everywhere, planes of zeros drove their index down for ever, and with it the layers before: these grew
    until 16 bits no longer held them.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return index.clamp(0, SCALES - 1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        outwards = ((index < 0) & (slope > 0)) | ((index > SCALES - 1) & (slope < 0))
        return slope.masked_fill(outwards, 0)


def _bent(x: Tensor) -> Tensor:
    return torch.maximum(x, x / 8)


def bits_of(symbols: Tensor, means: Tensor, indices: Tensor) -> Tensor:
    """What each symbol costs; differentiable in all three."""
    scale = torch.exp2(LOWEST + indices * ((HIGHEST - LOWEST) / (SCALES - 1)))
    apart = (symbols - means).abs()  # the distribution is symmetric: its far tail is the precise one
    share = torch.sigmoid((0.5 - apart) / scale) - torch.sigmoid((-0.5 - apart) / scale)
    return -torch.log2(share + 1 / TOTAL)


def phases_of(h: int, w: int) -> NDArray[np.int64]:
    """(h, w): in which phase a cell is coded."""
    odd_row, odd_column = np.arange(h)[:, None] % 2, np.arange(w)[None] % 2
    phases: NDArray[np.int64] = np.where(odd_row != odd_column, 2, odd_row & odd_column).astype(np.int64)
    return phases


class Integers(nn.Module):
    """What holds a trained model in whole numbers, and a weights file keeps; zeros before `freeze`."""

    def __init__(self, channels: int, slices: int, rates: int, width: int) -> None:
        super().__init__()
        said = 2 * channels // slices
        sizes = {
            "see": ((slices, width, (channels + 1) * 9), torch.int16),
            "told": ((slices, PHASES, rates, width), torch.int32),
            "think": ((slices, width, width), torch.int16),
            "think_bias": ((slices, width), torch.int32),
            "say": ((slices, said, width), torch.int16),
            "say_bias": ((slices, said), torch.int32),
            "table": ((SCALES, 2 * REACH + 1), torch.int32),
        }
        for name, (size, kind) in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=kind))

    def freeze(self, model: ContextModel) -> None:
        for name, values in _integers(model).items():
            self.get_buffer(name).copy_(values)


def _integers(model: ContextModel) -> dict[str, Tensor]:
    """The trained network in whole numbers."""
    one = 1 << WEIGHT_BITS

    def weights(layers: nn.ModuleList) -> Tensor:
        stacked = torch.stack([layer.get_parameter("weight").detach().flatten(1) for layer in layers])
        return (stacked.double() * one).round().clamp(-LIMIT, LIMIT).to(torch.int16)

    def biases(values: Tensor, bits: int) -> Tensor:
        most = float(1 << 30)
        return (values.detach().double() * one * (1 << bits)).round().clamp(-most, most).to(torch.int32)

    def bias_of(layers: nn.ModuleList) -> Tensor:
        return biases(torch.stack([layer.get_parameter("bias") for layer in layers]), ACTIVATION_BITS)

    return {
        "see": weights(model.see),
        "told": biases(model.told, 0),
        "think": weights(model.think),
        "think_bias": bias_of(model.think),
        "say": weights(model.say),
        "say_bias": bias_of(model.say),
        "table": _table(),
    }


def _table() -> Tensor:
    """(SCALES, 2 REACH + 1): how much of TOTAL - SYMBOLS counts lies below so many eighths from a mean."""
    scale = torch.exp2(torch.linspace(LOWEST, HIGHEST, SCALES, dtype=torch.float64))
    eighths = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    below = torch.sigmoid(eighths[None] / FINE / scale[:, None]) * (TOTAL - SYMBOLS)
    return below.round().to(torch.int32)


def whole(y: Tensor) -> Tensor:
    """The nearest symbols, with the slope of y where it is not beyond them."""
    # Beyond the largest symbol a slope would promise what cannot be coded: gains then grow without end.
    bounded = y.clamp(-LARGEST, LARGEST)
    return bounded + (bounded.round() - bounded).detach()


def noisy(y: Tensor, random_bchw: Tensor) -> Tensor:
    """What stands for symbols while the encoder learns what they cost: y and uniform noise of one symbol's width."""
    return y + (random_bchw - 0.5)
