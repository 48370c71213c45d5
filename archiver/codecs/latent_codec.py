"""Planes of whole numbers <-> bytes, with probabilities from a small network that is evaluated in whole numbers.

    symbols already coded ->[see 3x3, think, say]-> mean in eighths and scale of the next ones ->[table]-> counts

Symbols are coded in `slices` of channels, each in three phases of cells: of every 2 x 2 cells first the top left one,
then the bottom right one, then the other two (the spatial order of quadtree context models, after the checkerboard of
He et al., CVPR 2021). So the number of network passes does not grow with the picture, and a cell sees all near cells
of earlier slices, and those of its own slice that earlier phases have told.

Exactness (after Ballé et al., ICLR 2019, with finer steps than theirs, so that training needs not know of them):
weights are integers of 2^-12, activations of 2^-8, both of 16 bits; float64 holds every sum exactly in any order, the
roundings between layers are shifts. The discretised logistic distribution is a table of integers in the weights file,
its counts out of 2^15 are what the range coder (constriction) gets. No float decides what a bitstream means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from archiver.codecs.label_maps import TOTAL

# Legend of suffixes: B batch, C channels of symbols; h, w cells; n cells of a phase; K channels of a slice.

LARGEST = 15  # symbols are -15 … 15
SYMBOLS = 2 * LARGEST + 1
PHASES = 3
FINE = 8  # means are eighths of a symbol
SCALES = 32  # of the logistic distribution, 2^-4 … 2^3
LOWEST, HIGHEST = -4.0, 3.0
_REACH = FINE * 2 * LARGEST + FINE // 2  # the farthest that a border between symbols lies from a mean
_WEIGHT_BITS, _ACTIVATION_BITS = 12, 8
_LIMIT = (1 << 15) - 1
_CHUNK = 8192  # cells that are evaluated at once


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
        index = torch.cat(scales, 1)
        index = index + (index.clamp(0, SCALES - 1) - index).detach()
        return torch.cat(means, 1), index


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
            "table": ((SCALES, 2 * _REACH + 1), torch.int32),
        }
        for name, (size, kind) in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=kind))

    def freeze(self, model: ContextModel) -> None:
        for name, values in _integers(model).items():
            self.get_buffer(name).copy_(values)


def _integers(model: ContextModel) -> dict[str, Tensor]:
    """The trained network in whole numbers."""
    one = 1 << _WEIGHT_BITS

    def weights(layers: nn.ModuleList) -> Tensor:
        stacked = torch.stack([layer.get_parameter("weight").detach().flatten(1) for layer in layers])
        return (stacked.double() * one).round().clamp(-_LIMIT, _LIMIT).to(torch.int16)

    def biases(values: Tensor, bits: int) -> Tensor:
        most = float(1 << 30)
        return (values.detach().double() * one * (1 << bits)).round().clamp(-most, most).to(torch.int32)

    def bias_of(layers: nn.ModuleList) -> Tensor:
        return biases(torch.stack([layer.get_parameter("bias") for layer in layers]), _ACTIVATION_BITS)

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
    """(SCALES, 2 _REACH + 1): how much of TOTAL - SYMBOLS counts lies below so many eighths from a mean."""
    scale = torch.exp2(torch.linspace(LOWEST, HIGHEST, SCALES, dtype=torch.float64))
    eighths = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    below = torch.sigmoid(eighths[None] / FINE / scale[:, None]) * (TOTAL - SYMBOLS)
    return below.round().to(torch.int32)


@dataclass(frozen=True)
class LatentCoder:
    """The model in whole numbers (of type float64), on the CPU."""

    see: NDArray[np.float64]
    told: NDArray[np.float64]
    think: NDArray[np.float64]
    think_bias: NDArray[np.float64]
    say: NDArray[np.float64]
    say_bias: NDArray[np.float64]
    table: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.table.min() < 0 or self.table.max() > TOTAL - SYMBOLS or np.any(np.diff(self.table) < 0):
            raise ValueError(f"a table that does not rise from 0 to {TOTAL - SYMBOLS} at most")

    @property
    def channels(self) -> int:
        return int(self.see.shape[2]) // 9 - 1

    @property
    def rates(self) -> int:
        return int(self.told.shape[2])

    def encode(
        self, encoder: constriction.stream.queue.RangeEncoder, symbols: NDArray[np.int8], rate: int
    ) -> None:
        """All of (C, h, w), at most LARGEST in size."""
        known = _begin(*symbols.shape)
        for group in self._groups(*symbols.shape):
            counts = self._counts(known, group, rate)
            chosen = symbols[group.channels][:, group.rows, group.columns].T  # (n, K)
            encoder.encode(
                (chosen.ravel() + LARGEST).astype(np.int32),
                constriction.stream.model.Categorical(perfect=False),
                counts / TOTAL,
            )
            group.put(known, chosen)

    def decode(
        self, decoder: constriction.stream.queue.RangeDecoder, h: int, w: int, rate: int
    ) -> NDArray[np.int8]:
        """Inverse of `encode`."""
        shape = self.channels, h, w
        known = _begin(*shape)
        family = constriction.stream.model.Categorical(perfect=False)
        for group in self._groups(*shape):
            found = decoder.decode(family, self._counts(known, group, rate) / TOTAL)
            group.put(known, found.reshape(len(group.rows), -1) - LARGEST)
        symbols: NDArray[np.int8] = known[:-1, 1:-1, 1:-1].astype(np.int8)
        return symbols

    def bits(self, symbols: NDArray[np.int8], rate: int) -> float:
        """What a perfect coder would take."""
        known, total = _begin(*symbols.shape), 0.0
        for group in self._groups(*symbols.shape):
            counts = self._counts(known, group, rate)
            chosen = symbols[group.channels][:, group.rows, group.columns].T
            mine = counts[np.arange(chosen.size), chosen.ravel() + LARGEST]
            total -= float(np.log2(mine / TOTAL).sum())
            group.put(known, chosen)
        return total

    def _groups(self, channels: int, h: int, w: int) -> "Iterator[_Group]":
        size = channels // len(self.see)
        phases = phases_of(h, w)
        for number in range(len(self.see)):
            for phase in range(PHASES):
                rows, columns = np.nonzero(phases == phase)
                if len(rows):
                    yield _Group(number, slice(number * size, (number + 1) * size), phase, rows, columns)

    def _counts(self, known: NDArray[np.float64], group: "_Group", rate: int) -> NDArray[np.int64]:
        """(n K, SYMBOLS): how likely each symbol is, out of TOTAL, at least 1."""
        parts = [
            self._said(known, group, rate, slice(first, first + _CHUNK))
            for first in range(0, len(group.rows), _CHUNK)
        ]
        mean, index = np.split(np.concatenate(parts), 2, 1)
        return counts_of(mean.ravel(), index.ravel(), self.table)

    def _said(self, known: NDArray[np.float64], group: "_Group", rate: int, some: slice) -> NDArray[np.int64]:
        """(n, 2 K): means in eighths, then scale indices."""
        number = group.number
        near = np.lib.stride_tricks.sliding_window_view(known, (3, 3), (1, 2))
        x = (
            near[:, group.rows[some], group.columns[some]]
            .transpose(1, 0, 2, 3)
            .reshape(-1, known.shape[0] * 9)
        )
        x = _shifted(
            x @ self.see[number].T + self.told[number, group.phase, rate], _WEIGHT_BITS - _ACTIVATION_BITS
        )
        x = _shifted(x @ self.think[number].T + self.think_bias[number], _WEIGHT_BITS)
        said = x @ self.say[number].T + self.say_bias[number]
        size = said.shape[1] // 2
        mean = np.floor(said[:, :size] * 2.0 ** -(_WEIGHT_BITS + _ACTIVATION_BITS) * FINE + 0.5)
        index = np.floor(said[:, size:] * 2.0 ** -(_WEIGHT_BITS + _ACTIVATION_BITS) + 0.5)
        mean, index = np.clip(mean, -FINE * LARGEST, FINE * LARGEST), np.clip(index, 0, SCALES - 1)
        return np.concatenate((mean, index), 1).astype(np.int64)


def counts_of(
    means: NDArray[np.int64], indices: NDArray[np.int64], table: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Means in eighths (n,), scale indices (n,) -> counts (n, SYMBOLS), each at least 1, TOTAL together."""
    borders = FINE * np.arange(-LARGEST, LARGEST) + FINE // 2  # between a symbol and the next
    below = table[indices[:, None], borders[None] - means[:, None] + _REACH]
    counts: NDArray[np.int64] = 1 + np.diff(below, axis=1, prepend=0, append=TOTAL - SYMBOLS)
    return counts


@dataclass(frozen=True)
class _Group:
    """Symbols that are coded together: a slice's channels in a phase's cells."""

    number: int  # of the slice
    channels: slice
    phase: int
    rows: NDArray[np.int64]  # (n,)
    columns: NDArray[np.int64]

    def put(self, known: NDArray[np.float64], chosen: NDArray[np.integer]) -> None:
        """Makes (n, K) symbols known."""
        known[self.channels, self.rows + 1, self.columns + 1] = chosen.T


def _begin(channels: int, h: int, w: int) -> NDArray[np.float64]:
    """Nothing known, and a plane that is 1 inside: (C + 1, h + 2, w + 2)."""
    known = np.zeros((channels + 1, h + 2, w + 2))
    known[-1, 1:-1, 1:-1] = 1
    return known


def _shifted(x: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Bent, and rounded to the next layer's whole numbers."""
    rounded = np.floor(x * 2.0**-bits + 0.5)
    bent: NDArray[np.float64] = np.clip(np.maximum(rounded, np.floor(rounded / 8 + 0.5)), -_LIMIT, _LIMIT)
    return bent


def load_coder(module: Integers) -> LatentCoder:
    """The coder of frozen integers; ValueError where they cannot be one."""
    names = ("see", "told", "think", "think_bias", "say", "say_bias")
    values: Mapping[str, NDArray[np.float64]] = {
        name: module.get_buffer(name).cpu().numpy().astype(np.float64) for name in names
    }
    return LatentCoder(**values, table=module.get_buffer("table").cpu().numpy().astype(np.int64))


def whole(y: Tensor) -> Tensor:
    """The nearest symbols, with the slope of y itself."""
    return y + (y.round().clamp(-LARGEST, LARGEST) - y).detach()


def noisy(y: Tensor, random_bchw: Tensor) -> Tensor:
    """What stands for symbols while the encoder learns what they cost: y and uniform noise of one symbol's width."""
    return y + (random_bchw - 0.5)
