"""A part of which only some bytes have been read, in place: its columns, and single bitstreams by their blocks."""

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.part import BLOCK_BYTES, SCHEMA, Part, metadata_of
from manifests.salvage import Source
from manifests.storage import Store

GAP_BYTES = BLOCK_BYTES  # so far apart, two ranges are read in one request


@dataclass
class Sparse:
    """A part of which some bytes have been read, in place."""

    store: Store
    path: str
    content: bytearray
    metadata: pq.FileMetaData
    tail: int  # all from here on has been read

    @staticmethod
    def open(store: Store, part: Part, tail_bytes: int) -> "Sparse":
        """With its footer."""
        path, content = f"images/{part.path}", bytearray(part.size)
        start = max(0, part.size - tail_bytes)
        content[start:] = store.read_range(path, start, part.size)
        if len(content) != part.size:
            raise ValueError(f"{path} has other than {part.size} bytes")
        footer = part.size - int.from_bytes(content[-8:-4], "little") - 8
        if 0 <= footer < start:
            content[footer:start] = store.read_range(path, footer, start)
        metadata = metadata_of(bytes(content[min(start, footer) :]))
        return Sparse(store, path, content, metadata, min(start, footer))

    def fetch(self, extents: list[tuple[int, int]]) -> None:
        """Reads these, given in ascending order, as far as they lie before the tail; near ones at once."""
        for first, end in _joined(extents):
            if not 0 <= first <= end <= len(self.content):
                raise ValueError(f"bytes {first}..{end} of {len(self.content)} in {self.path}")
            end = min(end, self.tail)
            if first < end:
                self.content[first:end] = self.store.read_range(self.path, first, end)

    @property
    def source(self) -> Source:
        return Source(pa.py_buffer(self.content), self.metadata)


@dataclass(frozen=True)
class Bitstreams:
    """Where the bitstreams of a row group lie: one after the other, at the end of their column's chunk."""

    first: int  # byte of the part
    end: int
    ends: NDArray[np.int64]  # of each row's bitstream, from `first`
    crcs: list[int]  # of the blocks

    @staticmethod
    def of(metadata: pq.FileMetaData, group: int, lengths: pa.ChunkedArray, crcs: list[int]) -> "Bitstreams":
        ends = np.cumsum(pc.fill_null(lengths, 0).to_numpy().astype(np.int64))
        chunk, end = chunk_extent(metadata, group, len(SCHEMA.names) - 1)
        total = int(ends[-1]) if len(ends) else 0
        if not 0 <= total <= end - chunk or len(crcs) != -(-total // BLOCK_BYTES):
            raise ValueError(f"{total} bytes of bitstreams and {len(crcs)} blocks in {end - chunk} bytes")
        return Bitstreams(end - total, end, ends, crcs)

    def _span(self, row: int) -> tuple[int, int]:
        return int(self.ends[row - 1]) if row else 0, int(self.ends[row])

    def _numbers(self, row: int) -> range:
        start, end = self._span(row)
        return range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)) if end > start else range(0)

    def _extent(self, number: int) -> tuple[int, int]:
        start = self.first + number * BLOCK_BYTES
        return start, min(start + BLOCK_BYTES, self.end)

    def blocks(self, row: int) -> list[tuple[int, int]]:
        """First and end byte, in the part, of the blocks that a row's bitstream lies in."""
        return [self._extent(number) for number in self._numbers(row)]

    def read(self, content: bytearray, row: int) -> bytes:
        """A row's bitstream; ValueError where a block fails its CRC-32."""
        start, end = self._span(row)
        for number in self._numbers(row):
            first, last = self._extent(number)
            if zlib.crc32(memoryview(content)[first:last]) != self.crcs[number]:
                raise ValueError(f"bitstreams at bytes {first}..{last}: their CRC-32 is wrong")
        return bytes(content[self.first + start : self.first + end])


def chunk_extent(metadata: pq.FileMetaData, group: int, column: int) -> tuple[int, int]:
    """First and end byte of a column's chunk."""
    found = metadata.row_group(group).column(column)
    first = found.dictionary_page_offset if found.has_dictionary_page else found.data_page_offset
    return first, first + found.total_compressed_size


def group_extent(metadata: pq.FileMetaData, group: int) -> tuple[int, int]:
    """First and end byte of a row group."""
    return chunk_extent(metadata, group, 0)[0], chunk_extent(metadata, group, len(SCHEMA.names) - 1)[1]


def head_extent(metadata: pq.FileMetaData, group: int) -> tuple[int, int]:
    """First and end byte of all columns but the bitstream, which is the last."""
    return chunk_extent(metadata, group, 0)[0], chunk_extent(metadata, group, len(SCHEMA.names) - 1)[0]


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours as one range, and the gap between near ones with them: a request costs more than its bytes.

    Example: _joined([(0, 4), (4, 9), (200_000, 200_100)]) -> [(0, 9), (200_000, 200_100)]
    """
    joined: list[tuple[int, int]] = []
    for first, end in extents:
        if joined and 0 <= first - joined[-1][1] <= GAP_BYTES:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined
