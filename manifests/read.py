"""Parts -> records: in few range reads, and with every damaged record named."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.mending import mended
from manifests.part import SCHEMA, Damaged, Origin, Part, metadata_of, records_of, short_hash
from manifests.records import Record
from manifests.salvage import DAMAGE, Source, promised, salvaged
from manifests.storage import Store

FOOTER_BYTES = 32_000  # read first; holds the footer of ~40,000 records of 140 bytes
WHOLE_BYTES = 400_000  # a part up to this size is read in one request
_LARGEST_BYTES = 2**31 - 1  # a part is made in memory: a size above this is a damaged log's


def read_whole(content: bytes) -> pa.Table | None:
    """All rows of a part, or None where a page fails its CRC or cannot be read."""
    try:
        metadata = metadata_of(content)
        Origin.of(metadata)
        with pq.ParquetFile(
            pa.BufferReader(content), metadata=metadata, page_checksum_verification=True
        ) as file:
            table = file.read()
        return table.cast(SCHEMA) if table.schema.names == SCHEMA.names else None
    except DAMAGE:
        return None


def origin_of(content: bytes) -> Origin:
    """How the part came to be."""
    return Origin.of(metadata_of(content))


def read_origin(store: Store, part: Part) -> Origin | None:
    """How the part came to be, from its last bytes; None where they cannot be read."""
    try:
        start = max(0, part.size - FOOTER_BYTES)
        tail = store.read_range(f"images/{part.path}", start, part.size)
        footer_bytes = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < footer_bytes <= part.size:
            tail = store.read_range(f"images/{part.path}", part.size - footer_bytes, part.size)
        return Origin.of(metadata_of(tail))
    except DAMAGE:
        return None


def read_records(store: Store, part: Part, keys: frozenset[str] | None = None) -> Iterator[Record | Damaged]:
    """The part's records, or those of some keys, each once, in the order of the part.

    A record that cannot be had intact comes as `Damaged`, whatever part of the file is damaged; a record
    whose caption alone is lost comes without it, followed by a `Damaged` that says so. Keys that an intact
    part does not hold are left out.
    """
    if keys is not None and WHOLE_BYTES < part.size <= _LARGEST_BYTES:
        found = _few(store, part, keys)
        if found is not None:
            yield from found
            return
    try:
        content = store.read(f"images/{part.path}")
    except FileNotFoundError:
        yield from promised(store, part, keys, frozenset(), "part missing")
        return
    table = _intact(content, part)
    if table is not None:
        yield from records_of(table if keys is None else _of_keys(table, keys))
    else:
        yield from salvaged(store, part, content, keys)


def _intact(content: bytes, part: Part) -> pa.Table | None:
    """All rows of a part whose bytes are those that it is named after, up to one bit of its footer."""
    whole = content if short_hash(content) == part.hash else _with_mended_footer(content, part)
    return None if whole is None else read_whole(whole)


def _with_mended_footer(content: bytes, part: Part) -> bytes | None:
    with suppress(*DAMAGE):
        metadata_of(content)
        return None  # something else is damaged
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for first, end in ((len(content) - 8, len(content)), (footer, len(content) - 8)):
        if max(0, len(content) - FOOTER_BYTES) <= first < end:
            whole = mended(content, part.hash, first, end)
            if whole is not None:
                return whole
    return None


def _of_keys(table: pa.Table, keys: frozenset[str]) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=pa.array(sorted(keys), pa.string())))


def _few(store: Store, part: Part, keys: frozenset[str]) -> list[Record | Damaged] | None:
    """The records of some keys, from as few bytes as hold them; None where anything is not as it should."""
    try:
        source, groups = _open_sparse(store, part, keys)
        if source.metadata.num_rows != part.records:
            return None
        found: list[Record | Damaged] = []
        for group in groups:
            found += records_of(_of_keys(source.read(group, SCHEMA.names, verify=True), keys))
    except DAMAGE:
        return None
    return None if any(isinstance(record, Damaged) for record in found) else found


def _open_sparse(store: Store, part: Part, keys: frozenset[str]) -> tuple[Source, list[int]]:
    """The footer and the row groups that may hold the keys."""
    path, sparse = f"images/{part.path}", bytearray(part.size)
    start = part.size - FOOTER_BYTES
    sparse[start:] = store.read_range(path, start, part.size)
    footer = len(sparse) - int.from_bytes(sparse[-8:-4], "little") - 8
    if 0 <= footer < start:
        sparse[footer:start] = store.read_range(path, footer, start)
    metadata = metadata_of(bytes(sparse[min(start, footer) :]))
    groups = _groups_with(metadata, keys)
    for first, end in _joined([_extent(metadata, group) for group in groups]):
        if not 0 <= first < end <= part.size:
            raise ValueError(f"row group at {first}..{end} of {part.size} bytes")
        if first < min(start, footer):
            sparse[first:end] = store.read_range(path, first, end)
    return Source(pa.py_buffer(sparse), metadata), groups


def _groups_with(metadata: pq.FileMetaData, keys: frozenset[str]) -> list[int]:
    """Row groups whose key statistics admit one of the keys."""
    chosen, ordered = [], sorted(keys)  # code points and UTF-8 bytes sort alike
    for group in range(metadata.num_row_groups):
        bounds = metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max:
            chosen.append(group)
            continue
        place = bisect_left(ordered, bounds.min)
        if place < len(ordered) and ordered[place] <= bounds.max:
            chosen.append(group)
    return chosen


def _extent(metadata: pq.FileMetaData, group: int) -> tuple[int, int]:
    """First and end byte of a row group."""
    row_group = metadata.row_group(group)
    columns = [row_group.column(index) for index in range(row_group.num_columns)]
    starts = [c.dictionary_page_offset if c.has_dictionary_page else c.data_page_offset for c in columns]
    return min(starts), max(start + c.total_compressed_size for start, c in zip(starts, columns, strict=True))


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours as one range.

    Example: _joined([(0, 4), (4, 9), (12, 15)]) -> [(0, 9), (12, 15)]
    """
    joined: list[tuple[int, int]] = []
    for first, end in extents:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined
