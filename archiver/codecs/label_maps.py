"""Label maps, small and with large even regions <-> symbols of a range coder, by frozen integer tables.

A cell's label is mostly that of the cell to the left, above, or above to the right: which of these it is (its rank)
is coded in the context of how those labels agree; any other label follows by name. Cells in reading order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import constriction
import numpy as np
from numpy.typing import NDArray

RANKS = 4  # as left; as above; as above to the right; another
RANK_CONTEXTS = 64
ANOTHER = RANKS - 1
TOTAL = 1 << 15


@dataclass(frozen=True)
class LabelTables:
    """Counts out of TOTAL."""

    ranks: NDArray[np.int16]  # (RANK_CONTEXTS, RANKS)
    labels: NDArray[np.int16]  # (1, labels), 0 first

    def __post_init__(self) -> None:
        for counts in (self.ranks, self.labels):
            if counts.min() < 1 or np.any(counts.sum(1, dtype=np.int64) != TOTAL):
                raise ValueError(f"label tables whose counts are not at least 1, and {TOTAL} together")


def encode_labels(
    encoder: constriction.stream.queue.RangeEncoder, labels_hw: NDArray[np.uint8], tables: LabelTables
) -> None:
    """Adds a label map to what an encoder holds."""
    ranks, names = _families(tables)
    wide = _framed(*labels_hw.shape)
    for (y, x), label in np.ndenumerate(labels_hw):
        near = _near(wide, y, x)
        rank = _rank(int(label), near)
        encoder.encode(rank, ranks[_context(near)])
        if rank == ANOTHER:
            encoder.encode(int(label), names)
        wide[y + 1][x + 1] = int(label)


def decode_labels(
    decoder: constriction.stream.queue.RangeDecoder, height: int, width: int, tables: LabelTables
) -> NDArray[np.uint8]:
    """Inverse of `encode_labels`; ValueError for a rank that points outside."""
    ranks, names = _families(tables)
    wide = _framed(height, width)
    for y in range(height):
        for x in range(width):
            near = _near(wide, y, x)
            rank = decoder.decode(ranks[_context(near)])
            label = decoder.decode(names) if rank == ANOTHER else near[rank]
            if label < 0:
                raise ValueError("a bitstream whose label map points outside of the picture")
            wide[y + 1][x + 1] = label
    return np.array([row[1:-1] for row in wide[1:]], dtype=np.uint8)


def fit_label_tables(maps: Sequence[NDArray[np.uint8]], labels: int) -> LabelTables:
    """The tables that suit some label maps."""
    ranks = np.full((RANK_CONTEXTS, RANKS), 0.5)
    names = np.full((1, labels), 0.5)
    for labels_hw in maps:
        wide = _framed(*labels_hw.shape)
        for (y, x), label in np.ndenumerate(labels_hw):
            near = _near(wide, y, x)
            rank = _rank(int(label), near)
            ranks[_context(near), rank] += 1
            names[0, label] += rank == ANOTHER
            wide[y + 1][x + 1] = int(label)
    return LabelTables(whole(ranks, TOTAL), whole(names, TOTAL))


def whole(odds: NDArray[np.float64], total: int) -> NDArray[np.int16]:
    """Rows of odds -> counts of at least 1 that sum to `total`."""
    share = odds / odds.sum(1, keepdims=True)
    counts = 1 + np.floor(share * (total - odds.shape[1])).astype(np.int64)
    counts[np.arange(len(counts)), counts.argmax(1)] += total - counts.sum(1)
    made: NDArray[np.int16] = counts.astype(np.int16)
    return made


def _families(
    tables: LabelTables,
) -> tuple[list[constriction.stream.model.Categorical], constriction.stream.model.Categorical]:
    # Division by a power of two is exact: all machines make the same models of the same counts.
    ranks = [constriction.stream.model.Categorical(row / TOTAL, perfect=False) for row in tables.ranks]
    return ranks, constriction.stream.model.Categorical(tables.labels[0] / TOTAL, perfect=False)


def _framed(height: int, width: int) -> list[list[int]]:
    """Labels with a row above and a column at either side that are outside, -1."""
    return [[-1] * (width + 2) for _ in range(height + 1)]


def _near(wide: list[list[int]], y: int, x: int) -> tuple[int, int, int, int]:
    """Left, above, above to the right, above to the left, of cell (y, x)."""
    return wide[y + 1][x], wide[y][x + 1], wide[y][x + 2], wide[y][x]


def _rank(label: int, near: tuple[int, int, int, int]) -> int:
    return near.index(label) if label in near[:ANOTHER] else ANOTHER


def _context(near: tuple[int, int, int, int]) -> int:
    left, above, right, corner = near
    agree = (left == above, above == right, corner == left, corner == above, left == 0, above == 0)
    return sum(bit << place for place, bit in enumerate(agree))
