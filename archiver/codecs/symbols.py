"""Planes of symbols <-> bytes, by frozen integer tables over small causal contexts.

A symbol's table is chosen by its `CONTEXT` neighbours: cells left and above in its own channel, or any near cell of
the channels before. Cells are visited as a wave front moves through the planes: of all neighbours of a cell the
time `x + 2 y + 4 c` is earlier, so that the cells of one time are decoded together. Only integers choose tables, and
tables are counts out of 2^15 kept in the weights file; the range coder is constriction's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import constriction
import numpy as np
from numpy.typing import NDArray

from archiver.codecs.label_maps import TOTAL, whole

# Legend: C channels; h, w cells; n symbols; k neighbours.

LEVELS = 5
OUTSIDE = LEVELS  # the state that stands for a neighbour which is not coded
STATES = LEVELS + 1
REACH = 2  # cells up, left and right at most


@dataclass(frozen=True)
class Tables:
    """What symbols are coded with, of C channels."""

    neighbours: NDArray[np.int16]  # (C, k, 3): channel, row, column, relative to the symbol's
    counts: NDArray[np.int16]  # (C, STATES ** k, LEVELS), out of TOTAL; the first neighbour counts least

    def __post_init__(self) -> None:
        channels, near, three = self.neighbours.shape
        if three != 3 or self.counts.shape != (channels, STATES**near, LEVELS):
            raise ValueError(f"tables {self.counts.shape} for neighbours {self.neighbours.shape}")
        if self.counts.min() < 1 or np.any(self.counts.sum(2, dtype=np.int64) != TOTAL):
            raise ValueError(f"tables whose counts are not at least 1, and {TOTAL} together")
        for neighbour in self.neighbours.reshape(-1, 3).tolist():
            if not causal(*neighbour):
                raise ValueError(f"neighbour {neighbour}, expected one that is decoded before")


def causal(channel: int, row: int, column: int) -> bool:
    """Whether a neighbour is within reach and earlier than the symbol, on every path of decoding."""
    near = abs(row) <= REACH and abs(column) <= REACH
    return channel <= 0 and near and column + 2 * row + 4 * channel < 0


def encode_symbols(
    symbols_chw: NDArray[np.uint8], coded_hw: NDArray[np.bool_], tables: Tables
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Symbols 0 … LEVELS - 1 -> those of coded cells in wave order, and their probabilities (n, LEVELS)."""
    states, walk = _begin(coded_hw, symbols_chw.shape[0], tables)
    flat = states.ravel()
    inner = _inner(states, symbols_chw.shape[0])
    inner[:, coded_hw] = symbols_chw[:, coded_hw]
    tables_n = walk.contexts(flat, slice(None))
    return flat[walk.place].astype(np.int32), tables_n


def decode_symbols(
    decoder: constriction.stream.queue.RangeDecoder,
    channels: int,
    coded_hw: NDArray[np.bool_],
    tables: Tables,
) -> NDArray[np.uint8]:
    """Inverse of `encode_symbols` and a range coder; cells that are not coded come back as the middle level."""
    states, walk = _begin(coded_hw, channels, tables)
    flat = states.ravel()
    family = constriction.stream.model.Categorical(perfect=False)
    for rows in walk.steps():
        flat[walk.place[rows]] = decoder.decode(family, walk.contexts(flat, rows))
    symbols_chw: NDArray[np.uint8] = _inner(states, channels).copy()
    symbols_chw[:, ~coded_hw] = LEVELS // 2
    return symbols_chw


def ideal_bits(symbols_n: NDArray[np.int32], tables_n: NDArray[np.float64]) -> float:
    """What a perfect coder would take."""
    return float(-np.log2(tables_n[np.arange(len(symbols_n)), symbols_n]).sum())


@dataclass(frozen=True)
class _Walk:
    """All coded symbols in the order of the wave."""

    place: NDArray[np.int64]  # (n,) in the flat states
    channel: NDArray[np.int64]  # (n,)
    time: NDArray[np.int64]  # (n,), ascending
    delta: NDArray[np.int64]  # (C, k) from a symbol's place to its neighbours'
    probabilities: NDArray[np.float64]  # (C, STATES ** k, LEVELS)

    def contexts(self, flat: NDArray[np.uint8], rows: slice) -> NDArray[np.float64]:
        """The probabilities of some symbols, (n, LEVELS)."""
        channel = self.channel[rows]
        near = flat[self.place[rows, None] + self.delta[channel]]
        context = near @ (STATES ** np.arange(near.shape[1]))
        found: NDArray[np.float64] = self.probabilities[channel, context]
        return found

    def steps(self) -> Iterator[slice]:
        """Symbols that can be decoded together."""
        borders = [*np.flatnonzero(np.diff(self.time, prepend=-1)).tolist(), len(self.time)]
        yield from (slice(first, end) for first, end in pairwise(borders))


def _begin(coded_hw: NDArray[np.bool_], channels: int, tables: Tables) -> tuple[NDArray[np.uint8], _Walk]:
    """States (2 C, h + 4, w + 4), all outside, and the walk through the inner ones."""
    assert channels <= tables.neighbours.shape[0]
    height, width = coded_hw.shape
    states = np.full((2 * channels, height + 2 * REACH, width + 2 * REACH), OUTSIDE, dtype=np.uint8)
    y, x = np.nonzero(coded_hw)
    channel = np.repeat(np.arange(channels), len(y))
    time = (x + 2 * y)[None] + 4 * np.arange(channels)[:, None]
    order = np.argsort(time, axis=None, kind="stable")
    plane, row = states[0].size, states.shape[2]
    place = ((y + REACH) * row + x + REACH)[None] + plane * (channels + np.arange(channels))[:, None]
    # No neighbour reaches further back than the planes of OUTSIDE in front.
    back = np.maximum(tables.neighbours[:channels, :, 0].astype(np.int64), -channels)
    delta = tables.neighbours[:channels].astype(np.int64) @ np.array([0, row, 1]) + back * plane
    walk = _Walk(place.ravel()[order], channel[order], time.ravel()[order], delta, tables.counts / TOTAL)
    return states, walk


def _inner(states: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    return states[channels:, REACH:-REACH, REACH:-REACH]


def fit_tables(planes: Sequence[NDArray[np.uint8]], near: int) -> Tables:
    """Pictures' symbols, each (C, h, w) -> the tables that suit them.

    Neighbours are added one by one, each the one that shortens the code of every fourth picture, by tables made of
    the others, the most.
    """
    channels = planes[0].shape[0]
    neighbours = np.zeros((channels, near, 3), dtype=np.int16)
    counts = np.zeros((channels, STATES**near, LEVELS), dtype=np.int16)
    told = np.concatenate([np.full(plane[0].size, n % 4 == 0) for n, plane in enumerate(planes)])
    for channel in range(channels):
        symbols = np.concatenate([plane[channel].ravel() for plane in planes])
        views = {
            offset: np.concatenate([_neighbour(plane, channel, *offset) for plane in planes])
            for offset in _candidates(channel)
        }
        context = np.zeros(len(symbols), dtype=np.int64)
        odds, test_odds = (_odds(symbols[some], context[some], 1, None) for some in (slice(None), ~told))
        for place in range(near):
            size, best = STATES ** (place + 1), (np.inf, (0, 0, 0), context, test_odds)
            for offset, view in views.items():
                longer = context + view * STATES**place
                found = _odds(symbols[~told], longer[~told], size, test_odds)
                bits = -np.log2(found[longer[told], symbols[told]]).sum()
                if bits < best[0]:
                    best = (bits, offset, longer, found)
            _, offset, context, test_odds = best
            neighbours[channel, place] = offset
            odds = _odds(symbols, context, size, odds)
            views.pop(offset)
        counts[channel] = whole(odds, TOTAL)
    return Tables(neighbours, counts)


def _candidates(channel: int) -> list[tuple[int, int, int]]:
    own = [(0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0)]
    before = [(-back, 0, 0) for back in range(1, channel + 1)]
    around = [(-back, y, x) for back in range(1, channel + 1) for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    return [*own, *before, *around]


def _neighbour(
    plane_chw: NDArray[np.uint8], channel: int, back: int, row: int, column: int
) -> NDArray[np.uint8]:
    """The state of a neighbour of every symbol of a channel, (h w)."""
    wide = np.pad(plane_chw[channel + back], REACH, constant_values=OUTSIDE)
    height, width = plane_chw.shape[1:]
    top, left = REACH + row, REACH + column
    return wide[top : top + height, left : left + width].ravel()


def _odds(
    symbols: NDArray[np.uint8], context: NDArray[np.int64], contexts: int, fewer: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """(contexts, LEVELS): what was seen, and where little was, the odds without the last neighbour."""
    seen = np.bincount(context * LEVELS + symbols, minlength=contexts * LEVELS).reshape(contexts, LEVELS)
    prior = np.full((1, LEVELS), 1 / LEVELS) if fewer is None else fewer
    prior = np.tile(prior, (contexts // len(prior), 1))
    weight = 6.0
    odds: NDArray[np.float64] = (seen + weight * prior) / (seen.sum(1, keepdims=True) + weight)
    return odds
