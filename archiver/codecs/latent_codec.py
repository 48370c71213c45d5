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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import constriction
import numpy as np
from numpy.typing import NDArray

from archiver.codecs.label_maps import TOTAL
from archiver.codecs.latent_model import (
    ACTIVATION_BITS,
    FINE,
    LARGEST,
    LIMIT,
    PHASES,
    REACH,
    SCALES,
    SYMBOLS,
    WEIGHT_BITS,
    Integers,
    phases_of,
)

# Legend of suffixes: C channels of symbols; h, w cells; n cells of a phase; K channels of a slice.

MOST_BITS = 15  # that a symbol can take
_CHUNK = 8192  # cells that are evaluated at once

Encoder: TypeAlias = constriction.stream.queue.RangeEncoder
Decoder: TypeAlias = constriction.stream.queue.RangeDecoder
CATEGORICAL = constriction.stream.model.Categorical(perfect=False)
Found = TypeVar("Found")


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

    def encode(self, encoder: Encoder, symbols: NDArray[np.int8], rate: int) -> None:
        """All of (C, h, w), at most LARGEST in size."""
        known = _begin(*symbols.shape)
        for group in self._groups(*symbols.shape):
            counts = self._counts(known, group, rate)
            chosen = symbols[group.channels][:, group.rows, group.columns].T  # (n, K)
            encode_counted(encoder, chosen, counts)
            group.put(known, chosen)

    def decode(self, decoder: Decoder, h: int, w: int, rate: int) -> NDArray[np.int8]:
        """Inverse of `encode`."""
        shape = self.channels, h, w
        known = _begin(*shape)
        for group in self._groups(*shape):
            found = decode_counted(decoder, self._counts(known, group, rate))
            group.put(known, found.reshape(len(group.rows), -1))
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
            x @ self.see[number].T + self.told[number, group.phase, rate], WEIGHT_BITS - ACTIVATION_BITS
        )
        x = _shifted(x @ self.think[number].T + self.think_bias[number], WEIGHT_BITS)
        said = x @ self.say[number].T + self.say_bias[number]
        size = said.shape[1] // 2
        mean = np.floor(said[:, :size] * 2.0 ** -(WEIGHT_BITS + ACTIVATION_BITS) * FINE + 0.5)
        index = np.floor(said[:, size:] * 2.0 ** -(WEIGHT_BITS + ACTIVATION_BITS) + 0.5)
        mean, index = np.clip(mean, -FINE * LARGEST, FINE * LARGEST), np.clip(index, 0, SCALES - 1)
        return np.concatenate((mean, index), 1).astype(np.int64)


def pack_planes(coder: LatentCoder, symbols_chw: NDArray[np.int8], rate: int) -> bytes:
    """Symbols -> words of a range coder; checked to say the same."""
    words = packed_words(lambda encoder: coder.encode(encoder, symbols_chw, rate))
    _, h, w = symbols_chw.shape
    assert np.array_equal(unpack_planes(coder, words, h, w, rate), symbols_chw)
    return words


def unpack_planes(coder: LatentCoder, words: bytes, h: int, w: int, rate: int) -> NDArray[np.int8]:
    """Inverse of `pack_planes`, of h x w cells; ValueError where no symbols have such words."""
    return unpacked_words(words, lambda decoder: coder.decode(decoder, h, w, rate), h * w * coder.channels)


def packed_words(encode: Callable[[Encoder], None]) -> bytes:
    """What a range coder makes of what it is given: words, big-endian, without the zero bytes at the end."""
    encoder = Encoder()
    encode(encoder)
    words: bytes = encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")
    return words


def unpacked_words(words: bytes, decode: Callable[[Decoder], Found], symbols: int) -> Found:
    """Inverse of `packed_words`, of so many symbols; ValueError where no symbols have such words."""
    longest = symbols * MOST_BITS // 8 + 8
    if len(words) > longest:
        raise ValueError(
            f"{len(words)} bytes of symbols in a bitstream, expected up to {longest} for {symbols}"
        )
    padded = words + bytes(-len(words) % 4 + 4)
    try:
        return decode(Decoder(np.frombuffer(padded, ">u4").astype(np.uint32)))
    except AssertionError as error:  # so constriction says that no symbols lead to such words
        raise ValueError(f"a bitstream that no picture has: {error}") from error


def encode_counted(encoder: Encoder, symbols: NDArray[np.int8], counts: NDArray[np.int64]) -> None:
    """Symbols (n,), at most LARGEST in size, by the counts of each (n, SYMBOLS)."""
    if symbols.size:
        encoder.encode((symbols.ravel() + LARGEST).astype(np.int32), CATEGORICAL, counts / TOTAL)


def decode_counted(decoder: Decoder, counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Inverse of `encode_counted`."""
    if not len(counts):
        return np.empty(0, dtype=np.int8)
    found: NDArray[np.int8] = (decoder.decode(CATEGORICAL, counts / TOTAL) - LARGEST).astype(np.int8)
    return found


def counts_of(
    means: NDArray[np.int64], indices: NDArray[np.int64], table: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Means in eighths (n,), scale indices (n,) -> counts (n, SYMBOLS), each at least 1, TOTAL together."""
    borders = FINE * np.arange(-LARGEST, LARGEST) + FINE // 2  # between a symbol and the next
    below = table[indices[:, None], borders[None] - means[:, None] + REACH]
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
    bent: NDArray[np.float64] = np.clip(np.maximum(rounded, np.floor(rounded / 8 + 0.5)), -LIMIT, LIMIT)
    return bent


def load_coder(module: Integers) -> LatentCoder:
    """The coder of frozen integers; ValueError where they cannot be one."""
    names = ("see", "told", "think", "think_bias", "say", "say_bias")
    values: Mapping[str, NDArray[np.float64]] = {
        name: module.get_buffer(name).cpu().numpy().astype(np.float64) for name in names
    }
    return LatentCoder(**values, table=module.get_buffer("table").cpu().numpy().astype(np.int64))
