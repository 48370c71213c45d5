"""Captions <-> a dozen bytes each, for bitstreams that carry their own: counted bytes and whole numbers only.

A caption is its UTF-8 bytes and an END. Each symbol's odds come from the symbols before it: those that followed the
last `order` of them in the table's captions, mixed with those after the last `order` - 1, and so on down to equal
odds for all 256 (interpolated Kneser-Ney; Chen & Goodman 1999, section 2.7, with one fixed discount for each length
of context). So every text can be coded, and likely ones are short. Odds are integers, the arithmetic coder is that of
Witten, Neal & Cleary (CACM 1987) with 48-bit registers: the same bytes everywhere.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

MOST_BYTES = 10_000  # of a caption, UTF-8
END, BEGIN = 0xFF, 0xFE  # bytes that UTF-8 does not have
SYMBOLS = 256
ONE = 1 << 30  # odds of certainty
UNIT = 16  # discounts are sixteenths of a count
DISCOUNTS = (8, 10, 11, 13, 14, 14)  # after contexts of 0, 1, 2 … bytes; the last for all longer ones
FREQUENCY_SHIFT = 8  # of odds, to frequencies that add up to less than 2^23


@dataclass(frozen=True)
class Table:
    """A tree of byte strings: those of n + 1 bytes below those of n, in ascending order.

    Whatever follows a string in the tree also follows the string without its first byte.
    """

    order: int  # bytes of context, at most
    byte: NDArray[np.uint8]  # (n,) the last of each string, shortest strings first
    count: NDArray[np.int64]  # (n,) of the string, at least 1
    first: NDArray[np.int64]  # (n + 2,) where a string's children begin; place 0 is the empty string's

    def children(self, place: int) -> slice:
        """Of a string, in `byte` and `count`; place 0 is the empty string, 1 + p the string at p."""
        return slice(int(self.first[place]), int(self.first[place + 1]))

    def child(self, place: int, symbol: int) -> int | None:
        """The place of a string with one more byte."""
        children = self.children(place)
        found = children.start + int(np.searchsorted(self.byte[children], symbol))
        return found + 1 if found < children.stop and self.byte[found] == symbol else None


def load_table(file: Path, sha256: str) -> Table:
    """ValueError where it is not the table that was meant."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{file}: expected the file with sha256 {sha256}")
    try:
        return table_of(load(content))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{file}: expected a table of captions: {error}") from error


def table_of(arrays: Mapping[str, NDArray[np.generic]]) -> Table:
    """`byte` and `count` (n,), `children` (strings that have any,), `levels` (order + 1,): strings of each length."""
    levels, children = (arrays[name].astype(np.int64) for name in ("levels", "children"))
    byte, count = arrays["byte"].astype(np.uint8), arrays["count"].astype(np.int64)
    inner = 1 + int(levels[:-1].sum())  # the empty string among them
    if len(children) != inner or len(byte) != len(count) or children.sum() != len(byte) != levels.sum():
        raise ValueError("a table of captions whose parts do not fit together")
    every = np.zeros(len(byte) + 1, np.int64)
    every[:inner] = children
    return Table(len(levels) - 1, byte, count, np.concatenate([[0], np.cumsum(every)]))


def encode_caption(caption: str, table: Table) -> bytes:
    """ValueError for what is no Unicode text (a lone surrogate), or too long."""
    content = caption.encode("utf-8")
    if len(content) > MOST_BYTES:
        raise ValueError(f"a caption of {len(content):,} bytes, the limit is {MOST_BYTES:,}")
    coded = _encoded(content, table)
    assert _decoded(coded, table) == content
    return coded


def decode_caption(coded: bytes, table: Table) -> str:
    """Inverse of `encode_caption`; ValueError for bytes that it does not give."""
    content = _decoded(coded, table)
    if content is None or _encoded(content, table) != coded:
        raise ValueError(f"{len(coded):,} bytes that are no caption")
    return content.decode("utf-8")  # whose error is a ValueError


def _encoded(content: bytes, table: Table) -> bytes:
    coder, model = _Encoder(), _Model(table)
    for symbol in (*content, END):
        ends = model.ends()
        coder.encode(int(ends[symbol]), int(ends[symbol + 1]), int(ends[-1]))
        model.seen(symbol)
    return coder.finish()


def _decoded(coded: bytes, table: Table) -> bytes | None:
    """None where no end comes in time."""
    coder, model, content = _Decoder(coded), _Model(table), bytearray()
    while len(content) <= MOST_BYTES and not coder.past_the_end:
        ends = model.ends()
        symbol = int(np.searchsorted(ends, coder.target(int(ends[-1])), side="right")) - 1
        coder.drop(int(ends[symbol]), int(ends[symbol + 1]), int(ends[-1]))
        if symbol == END:
            return bytes(content)
        content.append(symbol)
        model.seen(symbol)
    return None


class _Model:
    """Where the table's captions went on from what has been seen."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._places = [0]  # in the tree, of the last 0, 1, 2 … symbols, as far as they are there
        self.seen(BEGIN)

    def seen(self, symbol: int) -> None:
        places = [0]
        for place in self._places[: self._table.order]:
            found = self._table.child(place, symbol)
            if found is None:
                break
            places.append(found)
        self._places = places

    def ends(self) -> NDArray[np.int64]:
        """(SYMBOLS + 1,): a symbol's frequency is the step to the next end."""
        odds = np.full(SYMBOLS, ONE // SYMBOLS, np.int64)
        for length, place in enumerate(self._places):
            children = self._table.children(place)
            if children.start == children.stop:
                break
            count = self._table.count[children]
            discount, total = DISCOUNTS[min(length, len(DISCOUNTS) - 1)], UNIT * int(count.sum())
            odds = odds * (discount * len(count)) // total
            odds[self._table.byte[children]] += (UNIT * count - discount) * ONE // total
        return np.concatenate([[0], np.cumsum((odds >> FREQUENCY_SHIFT) + 1)])


BITS = 48
HALF, QUARTER = 1 << BITS - 1, 1 << BITS - 2


class _Encoder:
    """Arithmetic coder; what it writes is followed by endless zero bits, which are not kept."""

    def __init__(self) -> None:
        self._low, self._high, self._pending = 0, (1 << BITS) - 1, 0
        self._bits: list[int] = []

    def encode(self, first: int, end: int, total: int) -> None:
        self._low, self._high = _narrowed(self._low, self._high, first, end, total)
        for step in _steps(self._low, self._high):
            self._low, self._high, bit = step
            if bit is None:
                self._pending += 1
            else:
                self._write(bit)

    def finish(self) -> bytes:
        """The interval holds its middle: one 1, then zeros; or 0, where it begins there."""
        if self._low > 0 or self._pending:
            self._write(1)
        bits = np.packbits(np.array(self._bits, np.uint8)).tobytes()
        return bits.rstrip(b"\0")

    def _write(self, bit: int) -> None:
        self._bits += [bit, *[1 - bit] * self._pending]
        self._pending = 0


class _Decoder:
    """Inverse of `_Encoder`."""

    def __init__(self, coded: bytes) -> None:
        self._low, self._high = 0, (1 << BITS) - 1
        self._bits = np.unpackbits(np.frombuffer(coded, np.uint8)).tolist()
        self._read, self._value = 0, 0
        for _ in range(BITS):
            self._next()

    @property
    def past_the_end(self) -> bool:
        """Whether nothing that was written is left, by far: what is decoded now is made up."""
        return self._read > len(self._bits) + 2 * BITS

    def target(self, total: int) -> int:
        return ((self._value - self._low + 1) * total - 1) // (self._high - self._low + 1)

    def drop(self, first: int, end: int, total: int) -> None:
        self._low, self._high = _narrowed(self._low, self._high, first, end, total)
        for low, high, bit in _steps(self._low, self._high):
            shift = QUARTER if bit is None else HALF * bit
            self._low, self._high, self._value = low, high, self._value - shift
            self._next()

    def _next(self) -> None:
        bit = self._bits[self._read] if self._read < len(self._bits) else 0
        self._value, self._read = 2 * self._value + bit, self._read + 1


def _narrowed(low: int, high: int, first: int, end: int, total: int) -> tuple[int, int]:
    width = high - low + 1
    return low + width * first // total, low + width * end // total - 1


def _steps(low: int, high: int) -> Iterator[tuple[int, int, int | None]]:
    """Doubles the interval until it is wide: (low, high, bit that is now known, or None for a middle half)."""
    while True:
        if high < HALF:
            bit, shift = 0, 0
        elif low >= HALF:
            bit, shift = 1, HALF
        elif low >= QUARTER and high < HALF + QUARTER:
            bit, shift = None, QUARTER
        else:
            return
        low, high = 2 * (low - shift), 2 * (high - shift) + 1
        yield low, high, bit
