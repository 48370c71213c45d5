"""Indices of a codebook <-> bytes: as digits of one number, or by a model of which index follows on which.

`Digits` packs exactly: n indices of K codes take as many bytes as numbers up to K^n need, for any K, in runs of `RUN`
indices. The paper's code is this one, uniform.

`IndexModel` (ours; the paper's reviewers missed one) predicts an index from six neighbours that are decoded before:
each neighbour's code adds a row of a table to a hidden vector, which is bent and multiplied with another table, to
logits in 1/256 bits. All tables are integers, and every sum of their products is exact in float64 in any order; powers
of two are looked up in a table of the weights file; counts are out of 2^16 and go to constriction's range coder. No
float decides what a bitstream means. Cells are visited as a wave front: at time `x + 2 y` all neighbours of a cell are
known. There is one bitstream for each picture: any other bytes are refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

# Legend: y, x cells of the hyper-latent; n indices of a run or of a wave; K codes; D hidden numbers.

RUN = 1024
NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # row, column, relative to the cell
REACH = 2
HIDDEN = 32
TOTAL = 1 << 16
_FINE = 10  # bits after the point of tables and hidden numbers
_STEPS = 256  # logits to a bit
_LIMIT = (1 << 15) - 1
_MOST = 4096  # cells whose counts are held at once
_POWERS = 16 * _STEPS  # an index that is 2^-16 as likely as the likeliest gets the count 1


def pack_digits(indices_n: NDArray[np.int64], codes: int) -> bytes:
    """Runs of indices, each as one big-endian number of base `codes`, the first index most significant.

    Example: pack_digits([1, 2, 3], 10) -> b"\\x00\\x7b"   (123, in the two bytes that hold up to 999)
    """
    parts = []
    for first in range(0, len(indices_n), RUN):
        run = indices_n[first : first + RUN].tolist()
        parts.append(_number(run, codes).to_bytes(_run_bytes(len(run), codes), "big"))
    return b"".join(parts)


def unpack_digits(packed: bytes, count: int, codes: int) -> NDArray[np.int64]:
    """Inverse of `pack_digits`; `count` is not stored. ValueError where no indices have such bytes."""
    expected = digits_bytes(count, codes)
    if len(packed) != expected:
        raise ValueError(
            f"a bitstream of {len(packed)} bytes, expected {expected} for {count} indices of {codes} codes"
        )
    found: list[int] = []
    place = 0
    for first in range(0, count, RUN):
        length = min(RUN, count - first)
        size = _run_bytes(length, codes)
        number = int.from_bytes(packed[place : place + size], "big")
        place += size
        if number >= codes**length:
            raise ValueError(f"a bitstream that no indices of {codes} codes have")
        found += _digits(number, length, codes)
    return np.array(found, dtype=np.int64)


def digits_bytes(count: int, codes: int) -> int:
    """Bytes that `count` indices take."""
    whole, rest = divmod(count, RUN)
    return whole * _run_bytes(RUN, codes) + (_run_bytes(rest, codes) if rest else 0)


def _run_bytes(length: int, codes: int) -> int:
    largest: int = codes**length - 1
    return (largest.bit_length() + 7) // 8


def _number(digits: list[int], base: int) -> int:
    number = 0
    for digit in digits:
        number = number * base + digit
    return number


def _digits(number: int, length: int, base: int) -> list[int]:
    found = []
    for _ in range(length):
        number, digit = divmod(number, base)
        found.append(digit)
    return found[::-1]


class IndexModel(nn.Module):
    """The integers of one rate, as a weights file keeps them; `fit_model` makes them."""

    see: Tensor  # (neighbours, K + 1, D) int16; row K: outside the picture
    say: Tensor  # (D, K) int16
    base: Tensor  # (K,) int32: logits that no neighbour changes
    powers: Tensor  # (_POWERS + 1,) int32: 2^(-d / 256), out of 2^24

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("see", torch.zeros(len(NEIGHBOURS), codes + 1, HIDDEN, dtype=torch.int16))
        self.register_buffer("say", torch.zeros(HIDDEN, codes, dtype=torch.int16))
        self.register_buffer("base", torch.zeros(codes, dtype=torch.int32))
        self.register_buffer("powers", torch.ones(_POWERS + 1, dtype=torch.int32))


@dataclass(frozen=True)
class IndexCoder:
    """An `IndexModel` on the CPU, its integers in float64."""

    see: NDArray[np.float64]
    say: NDArray[np.float64]
    base: NDArray[np.float64]
    powers: NDArray[np.int64]

    @property
    def codes(self) -> int:
        return len(self.base)

    def encode(self, indices_yx: NDArray[np.int64]) -> bytes:
        """32-bit words of a range coder, big-endian, without the zero bytes at the end but never nothing; inverted, so
        that zeros are none either."""
        encoder = constriction.stream.queue.RangeEncoder()
        padded = _around(indices_yx, self.codes)
        rows, columns = np.concatenate([np.stack(wave) for wave in _waves(*indices_yx.shape)], 1)
        for first in range(0, len(rows), _MOST):  # the counts of a whole picture would not fit the memory
            some = slice(first, first + _MOST)
            near, chosen = _near(padded, rows[some], columns[some]), indices_yx[rows[some], columns[some]]
            family = constriction.stream.model.Categorical(perfect=False)
            encoder.encode(chosen.astype(np.int32), family, self.counts(near) / TOTAL)
        words: bytes = encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0") or b"\0"
        return _inverted(words)

    def decode(self, packed: bytes, y: int, x: int) -> NDArray[np.int64]:
        """Inverse of `encode`, of y x x indices; ValueError for any bytes that `encode` does not write."""
        most = y * x * 2 + 8  # an index takes 16 bits at most
        if len(packed) > most:
            raise ValueError(
                f"a bitstream of {len(packed)} bytes, expected up to {most} for {y} x {x} indices"
            )
        words = _inverted(packed) + bytes(-len(packed) % 4 + 4)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, ">u4").astype(np.uint32))
        family = constriction.stream.model.Categorical(perfect=False)
        padded = _around(np.zeros((y, x), dtype=np.int64), self.codes)
        try:
            for rows, columns in _waves(y, x):
                found = decoder.decode(family, self.counts(_near(padded, rows, columns)) / TOTAL)
                padded[rows + REACH, columns + REACH] = found
        except AssertionError as error:  # so constriction says that no symbols lead to such words
            raise ValueError(f"a bitstream that no picture has: {error}") from error
        indices_yx: NDArray[np.int64] = padded[REACH:-REACH, REACH:-REACH].copy()
        if self.encode(indices_yx) != packed:
            raise ValueError("a bitstream that no picture has")
        return indices_yx

    def counts(self, near: NDArray[np.int64]) -> NDArray[np.int64]:
        """Neighbours' indices (n, 6) -> how likely each index is, (n, K): at least 1, TOTAL together."""
        hidden = self.see[np.arange(len(NEIGHBOURS)), near].sum(1)
        bent = np.clip(np.maximum(hidden, np.floor(hidden / 8)), -_LIMIT, _LIMIT)
        logits = np.floor((bent @ self.say) * (_STEPS / (1 << 2 * _FINE))) + self.base
        below = (logits.max(1, keepdims=True) - logits).clip(0, _POWERS).astype(np.int64)
        powers = self.powers[below]
        counts: NDArray[np.int64] = 1 + powers * (TOTAL - self.codes) // powers.sum(1, keepdims=True)
        counts[np.arange(len(counts)), counts.argmax(1)] += TOTAL - counts.sum(1)
        return counts

    def bits(self, indices_yx: NDArray[np.int64]) -> float:
        """What a perfect coder would take."""
        padded, total = _around(indices_yx, self.codes), 0.0
        for rows, columns in _waves(*indices_yx.shape):
            counts = self.counts(_near(padded, rows, columns))
            total -= float(np.log2(counts[np.arange(len(rows)), indices_yx[rows, columns]] / TOTAL).sum())
        return total


def _inverted(words: bytes) -> bytes:
    return bytes(255 - byte for byte in words)


def load_indices(model: IndexModel) -> IndexCoder:
    """ValueError where the tables cannot be those of a model."""
    see, say, base = (
        model.get_buffer(name).cpu().numpy().astype(np.float64) for name in ("see", "say", "base")
    )
    powers = model.get_buffer("powers").cpu().numpy().astype(np.int64)
    if powers.min() < 0 or powers.max() > 1 << 24 or powers[0] < 1 or np.any(np.diff(powers) > 0):
        raise ValueError("a table of powers that does not fall from 2^24 at most to 0")
    if np.abs(base).max() > 1 << 24:
        raise ValueError(f"a logit of {np.abs(base).max():.0f}, expected up to 2^24")
    return IndexCoder(see, say, base, powers)


def _around(indices_yx: NDArray[np.int64], outside: int) -> NDArray[np.int64]:
    return np.pad(indices_yx, REACH, constant_values=outside)


def _near(
    padded: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    found = [padded[rows + REACH + row, columns + REACH + column] for row, column in NEIGHBOURS]
    return np.stack(found, 1)


def _waves(y: int, x: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and columns of the cells that can be decoded together, in the order of decoding."""
    rows, columns = (axis.ravel() for axis in np.indices((y, x)))
    time = columns + 2 * rows
    order = np.argsort(time, kind="stable")
    rows, columns, time = rows[order], columns[order], time[order]
    borders = [*np.flatnonzero(np.diff(time, prepend=-1)).tolist(), len(time)]
    for first, end in pairwise(borders):
        yield rows[first:end], columns[first:end]


def fit_model(maps: Sequence[NDArray[np.int64]], codes: int, steps: int = 3000) -> IndexModel:
    """Pictures' indices, each (y, x) -> the model that suits them; every tenth picture says when it does best."""
    near = [_near(_around(one, codes), *(axis.ravel() for axis in np.indices(one.shape))) for one in maps]
    judged = np.concatenate([np.full(one.size, place % 10 == 9) for place, one in enumerate(maps)])
    if not judged.any() or judged.all():
        judged = np.arange(len(judged)) % 10 == 9  # too few pictures: single indices judge
    seen = torch.from_numpy(np.concatenate(near))
    chosen = torch.from_numpy(np.concatenate([one.ravel() for one in maps]))
    told = torch.from_numpy(~judged)
    tables, best = _Tables(codes, chosen[told]), (float("inf"), IndexModel(codes))
    random = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(tables.parameters(), 2e-2)
    learnt, judges = torch.nonzero(told)[:, 0], torch.nonzero(~told)[:100_000, 0]
    for step in range(steps + 1):
        if step % max(1, steps // 15) == 0:
            with torch.no_grad():
                bits = float(tables.bits(seen[judges], chosen[judges]))
            if bits < best[0]:
                best = (bits, tables.whole())
        for group in optimiser.param_groups:
            group["lr"] = 2e-2 * (1 - step / (steps + 1))
        some = learnt[torch.randint(0, len(learnt), (2048,), generator=random)]
        optimiser.zero_grad()
        loss = tables.bits(seen[some], chosen[some]) + tables.size()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return best[1]


class _Tables(nn.Module):
    """An `IndexModel` before it is made whole."""

    def __init__(self, codes: int, chosen: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.see = nn.Parameter(0.1 * torch.randn(len(NEIGHBOURS), codes + 1, HIDDEN, generator=generator))
        self.say = nn.Parameter(0.1 * torch.randn(HIDDEN, codes, generator=generator))
        self.base = nn.Parameter(torch.log2(torch.bincount(chosen, minlength=codes) + 1.0))
        self.codes = codes

    def bits(self, near: Tensor, chosen: Tensor) -> Tensor:
        """Of an index, in the mean."""
        hidden = sum((self.see[place][near[:, place]] for place in range(len(NEIGHBOURS))), torch.zeros(()))
        logits = torch.maximum(hidden, hidden / 8) @ self.say + self.base
        nats = logits * float(np.log(2))
        loss: Tensor = F.cross_entropy(nats, chosen) / float(np.log(2))
        return loss

    def size(self) -> Tensor:
        """A mild price on large tables: rare codes should tell little."""
        return 1e-6 * (self.see.square().sum() + self.say.square().sum())

    def whole(self) -> IndexModel:
        model = IndexModel(self.codes)
        one = 1 << _FINE
        powers = 2.0 ** (24 - torch.arange(_POWERS + 1, dtype=torch.float64) / _STEPS)
        base = (self.base - self.base.max()).clamp_min(-1000) * _STEPS
        for name, values in (
            ("see", (self.see * one).clamp(-_LIMIT, _LIMIT)),
            ("say", (self.say * one).clamp(-_LIMIT, _LIMIT)),
            ("base", base),
            ("powers", powers),
        ):
            model.get_buffer(name).copy_(values.detach().round())
        return model
