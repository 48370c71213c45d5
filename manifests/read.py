"""Parts -> records: in few range reads, and with every damaged record named."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.archive import read_plan
from manifests.part import SCHEMA, Damaged, Origin, Part, records_of
from manifests.plan import Plan
from manifests.records import Record
from manifests.storage import Store

FOOTER_BYTES = 64_000  # read first; holds the footer of ~120,000 records of 140 bytes
_WHOLE_BYTES = 400_000  # a part up to this size is read in one request

# What pyarrow raises for damaged pages, headers and footers.
_DAMAGE = (OSError, ValueError, pa.ArrowException, EOFError, OverflowError)


def read_whole(content: bytes) -> pa.Table | None:
    """All rows of a part, or None where a page fails its CRC or cannot be read."""
    try:
        with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
            Origin.of(file.metadata)
            table = file.read()
        return table.cast(SCHEMA) if table.schema.names == SCHEMA.names else None
    except _DAMAGE:
        return None


def origin_of(content: bytes) -> Origin:
    """How the part came to be."""
    return Origin.of(pq.read_metadata(io.BytesIO(content)))


def read_records(store: Store, part: Part, keys: frozenset[str] | None) -> Iterator[Record | Damaged]:
    """The part's records, or those of some keys, each once, in the order of the part.

    A record that cannot be had intact comes as `Damaged`, whatever part of the file is damaged; a record
    whose caption alone is lost comes without it, followed by a `Damaged` that says so.
    """
    wanted = None if keys is None else set(keys)
    seen: set[str] = set()
    try:
        source = _open(store, part, keys)
    except FileNotFoundError:
        yield from (Damaged(key, "part missing") for key in _promised(store, part, keys, seen))
        return
    except _DAMAGE:
        yield from (Damaged(key, "footer") for key in _promised(store, part, keys, seen))
        return
    for group in source.groups:
        for found in _read_group(store, part, source, group):
            if wanted is None or found.key in wanted:
                seen.add(found.key)
                yield found
    yield from (Damaged(key, "record") for key in _promised(store, part, keys, seen))


def _promised(store: Store, part: Part, keys: frozenset[str] | None, seen: set[str]) -> list[str]:
    """Keys that the part should have given and did not: those asked for, or all of its plan's range."""
    if keys is not None:
        return sorted(keys - seen)
    if len(seen) >= part.records:
        return []
    rows = read_plan(store, part.run).rows["key"].slice(part.first, part.last - part.first + 1)
    return [key for key in rows.to_pylist() if key not in seen]


@dataclass(frozen=True)
class _Source:
    """Those bytes of a part that are needed, in place; zeros elsewhere."""

    content: pa.Buffer
    metadata: pq.FileMetaData
    groups: list[int]

    def read(self, group: int, columns: list[str], verify: bool) -> pa.Table:
        with pq.ParquetFile(
            pa.BufferReader(self.content), metadata=self.metadata, page_checksum_verification=verify
        ) as file:
            return file.read_row_group(group, columns=columns)


def _open(store: Store, part: Part, keys: frozenset[str] | None) -> _Source:
    if keys is None or part.size <= _WHOLE_BYTES:
        content = store.read(f"images/{part.path}")
        metadata = pq.read_metadata(io.BytesIO(content))
        return _Source(pa.py_buffer(content), metadata, _groups_with(metadata, keys))
    sparse = bytearray(part.size)
    start = max(0, part.size - FOOTER_BYTES)
    sparse[start:] = store.read_range(f"images/{part.path}", start, part.size)
    footer_bytes = int.from_bytes(sparse[-8:-4], "little") + 8
    if FOOTER_BYTES < footer_bytes <= part.size:
        start = part.size - footer_bytes
        sparse[start:] = store.read_range(f"images/{part.path}", start, part.size)
    metadata = pq.read_metadata(io.BytesIO(sparse))
    groups = _groups_with(metadata, keys)
    for first, end in _joined([_extent(metadata, group) for group in groups]):
        if not 0 <= first < end <= part.size:
            raise ValueError(f"row group at {first}..{end} of {part.size} bytes")
        sparse[first:end] = store.read_range(f"images/{part.path}", first, end)
    return _Source(pa.py_buffer(sparse), metadata, groups)


def _groups_with(metadata: pq.FileMetaData, keys: frozenset[str] | None) -> list[int]:
    """Row groups whose key statistics admit one of the keys."""
    groups = range(metadata.num_row_groups)
    if keys is None:
        return list(groups)
    chosen = []
    for group in groups:
        bounds = metadata.row_group(group).column(0).statistics
        low_high = (bounds.min, bounds.max) if bounds is not None and bounds.has_min_max else None
        if low_high is None or any(low_high[0] <= key <= low_high[1] for key in keys):
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


def _read_group(store: Store, part: Part, source: _Source, group: int) -> Iterator[Record | Damaged]:
    try:
        table = source.read(group, SCHEMA.names, verify=True)
    except _DAMAGE:
        yield from _salvage(store, part, source, group)
    else:
        yield from records_of(table)


def _salvage(store: Store, part: Part, source: _Source, group: int) -> Iterator[Record | Damaged]:
    """Of a row group with a damaged page: the records that their own check vouches for, the names of the rest.

    Columns are read without their CRC where they can be; key, size and time come from the plan where theirs fail.
    """
    plan = read_plan(store, part.run)
    rows, suspect = _columns_one_by_one(source, group)
    before = sum(source.metadata.row_group(index).num_rows for index in range(group))
    count = source.metadata.row_group(group).num_rows
    if part.records == part.last - part.first + 1:  # nothing was dropped: plan rows and records agree
        rows |= _from_plan(plan, part.first + before, count, suspect)
    rows["spec"], rows["run"] = pa.array([plan.head.spec] * count), pa.array([part.run] * count)
    whole = pa.table(
        {name: rows.get(name, pa.nulls(count, SCHEMA.field(name).type)) for name in SCHEMA.names}
    )
    for found in records_of(whole):
        if isinstance(found, Record) and found.image is not None and "caption" in suspect:
            yield replace(found, image=replace(found.image, caption=None))
            yield Damaged(found.key, "caption")
        else:
            yield found


def _columns_one_by_one(source: _Source, group: int) -> tuple[dict[str, pa.Array], set[str]]:
    """The columns that can be read at all, and the names of those whose pages fail their CRC."""
    rows: dict[str, pa.Array] = {}
    suspect: set[str] = set()
    for name in SCHEMA.names:
        for verify in (True, False):
            try:
                column = (
                    source.read(group, [name], verify)[name].combine_chunks().cast(SCHEMA.field(name).type)
                )
                if column.type == pa.string():
                    column.validate(full=True)  # damaged UTF-8 must not reach Python
            except _DAMAGE:
                suspect.add(name)
                continue
            rows[name] = column
            break
    return rows, suspect


def _from_plan(plan: Plan, first: int, count: int, suspect: set[str]) -> dict[str, pa.Array]:
    """What the plan knows of the suspect columns."""
    rows = plan.rows.slice(first, count)
    known = {"key": "key", "source_bytes": "size", "mtime": "mtime"}
    return {name: rows[planned].combine_chunks() for name, planned in known.items() if name in suspect}
