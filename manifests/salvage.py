"""Damaged parts -> the records that can still be vouched for, and the names of the others."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.archive import read_plan
from manifests.part import SCHEMA, Damaged, Origin, Part, metadata_of, records_of
from manifests.plan import Plan
from manifests.records import Record
from manifests.storage import Store

# What pyarrow raises for damaged pages, headers and footers; but see NO_ANSWER.
DAMAGE = (OSError, ValueError, LookupError, pa.ArrowException, EOFError, OverflowError, MemoryError)
NO_ANSWER = (ConnectionError, TimeoutError, PermissionError)  # the store's, which say nothing of a part


@dataclass(frozen=True)
class Source:
    """Those bytes of a part that are needed, in place; what lies elsewhere is not read."""

    content: pa.Buffer
    metadata: pq.FileMetaData

    def read(self, group: int, columns: list[str], verify: bool) -> pa.Table:
        """Of a row group.

        Without threads, as all that is read of Parquet here, and from a BufferReader, of which nothing is read ahead: a
        thread of Arrow's that lets go of `content` late, when Python is ending, aborts the process (apache/arrow issue
        34314). A part of 40,000 records is read as fast.
        """
        with pq.ParquetFile(
            pa.BufferReader(self.content), metadata=self.metadata, page_checksum_verification=verify
        ) as file:
            return file.read_row_group(group, columns=columns, use_threads=False)


def salvaged(
    store: Store, part: Part, content: bytes, keys: frozenset[str] | None
) -> Iterator[Record | Damaged]:
    """What a damaged part still gives, row group by row group, and the names of what it does not."""
    seen: set[str] = set()
    try:
        metadata = metadata_of(content)
        groups = _agreeing_groups(metadata, part)
    except DAMAGE:
        yield from promised(store, part, keys, frozenset(), "footer")
        return
    source = Source(pa.py_buffer(content), metadata)
    for group in groups:
        for found in _read_group(store, part, source, group):
            if keys is None or found.key in keys:
                seen.add(found.key)
                yield found
    yield from promised(store, part, keys, frozenset(seen), "record")


def promised(
    store: Store, part: Part, keys: frozenset[str] | None, seen: frozenset[str], what: str
) -> Iterator[Damaged]:
    """Those of the keys, or of the plan's range, that the part should have given and did not."""
    if keys is not None:
        yield from (Damaged(key, what) for key in sorted(keys - seen))
    elif len(seen) < part.records:
        plan = _plan(store, part)
        if plan is None:
            yield Damaged(f"images/{part.path}", f"{what}, and the plan that names its records")
        else:
            rows = plan.rows["key"].slice(part.first, part.last - part.first + 1)
            yield from (Damaged(key, what) for key in rows.to_pylist() if key not in seen)


def _plan(store: Store, part: Part) -> Plan | None:
    """The plan of the part's run; None where it is lost or damaged."""
    try:
        return read_plan(store, part.run)
    except (FileNotFoundError, ValueError):
        return None


def _agreeing_groups(metadata: pq.FileMetaData, part: Part) -> list[int]:
    """All row groups, of a footer that agrees with the log and the format."""
    Origin.of(metadata)
    groups = list(range(metadata.num_row_groups))
    rows = sum(metadata.row_group(group).num_rows for group in groups)
    if metadata.schema.names != SCHEMA.names or not rows == metadata.num_rows == part.records:
        raise ValueError(f"footer of {metadata.num_rows} rows, expected {part.records}")
    return groups


def _read_group(store: Store, part: Part, source: Source, group: int) -> Iterator[Record | Damaged]:
    try:
        table = source.read(group, SCHEMA.names, verify=True).cast(SCHEMA)
        table.validate(full=True)
    except DAMAGE:
        yield from _rows_of_damaged(store, part, source, group)
    else:
        yield from records_of(table)


def _rows_of_damaged(store: Store, part: Part, source: Source, group: int) -> Iterator[Record | Damaged]:
    """Of a row group with a damaged page: the records that their check vouches for, the names of the rest.

    Columns are read without their CRC where they can be; key, size and time come from the plan where theirs
    fail. What neither check nor plan vouches for, and the picture does not depend on, is left out.
    """
    rows, suspect = _columns_one_by_one(source, group)
    if "bitstream" in suspect and "bitstream_bytes" not in suspect:
        rows["bitstream"] = _cut_by_lengths(source, group, rows["bitstream_bytes"])
    if "bitstream_bytes" in suspect and "bitstream" in rows:
        rows["bitstream_bytes"] = pc.binary_length(rows["bitstream"])
    before = sum(source.metadata.row_group(index).num_rows for index in range(group))
    count = source.metadata.row_group(group).num_rows
    plan = _plan(store, part) if suspect & {"key", "source_bytes", "mtime", "spec"} else None
    if plan is not None:
        rows["spec"] = pa.array([plan.head.spec] * count)
        if part.records == part.last - part.first + 1:  # nothing was dropped: plan rows and records agree
            rows |= _from_plan(plan, part.first + before, count, suspect)
            suspect.discard("key")
    rows["run"] = pa.array([part.run] * count)
    for name in suspect & {"caption", "notes", "digest"}:
        rows[name] = pa.nulls(count, SCHEMA.field(name).type)
    whole = pa.table(
        {name: rows.get(name, pa.nulls(count, SCHEMA.field(name).type)) for name in SCHEMA.names}
    )
    for found in records_of(whole):
        if isinstance(found, Record):
            yield found
            if found.image is not None and "caption" in suspect:
                yield Damaged(found.key, "caption")
        elif "key" not in suspect:  # else its name is damaged too: the plan has it
            yield found


def _columns_one_by_one(source: Source, group: int) -> tuple[dict[str, pa.Array], set[str]]:
    """The columns that can be read at all, and the names of those whose pages fail their CRC."""
    rows: dict[str, pa.Array] = {}
    suspect: set[str] = set()
    count = source.metadata.row_group(group).num_rows
    for name in SCHEMA.names:
        for verify in (True, False):
            try:
                column = source.read(group, [name], verify)[name].combine_chunks()
                column = column.cast(SCHEMA.field(name).type)
                column.validate(full=True)  # damaged UTF-8 must not reach Python
                if len(column) != count:
                    raise ValueError(f"{len(column)} rows, expected {count}")
            except DAMAGE:
                suspect.add(name)
                continue
            rows[name] = column
            break
    return rows, suspect


def _cut_by_lengths(source: Source, group: int, lengths: pa.Array) -> pa.Array:
    """Bitstreams by their lengths' own column: one after the other, they end the column's chunk.

    A bit that is flipped among the chunk's own lengths would move all bitstreams behind it.
    """
    column = source.metadata.row_group(group).column(SCHEMA.names.index("bitstream"))
    end = column.data_page_offset + column.total_compressed_size
    known = [length for length in lengths.to_pylist() if length is not None]
    start = end - sum(known)
    if min(known, default=0) < 0 or not column.data_page_offset <= start <= end <= source.content.size:
        return pa.nulls(len(lengths), pa.binary())
    found: list[bytes | None] = []
    for length in lengths.to_pylist():
        found.append(None if length is None else source.content[start : start + length].to_pybytes())
        start += length or 0
    return pa.array(found, pa.binary())


def _from_plan(plan: Plan, first: int, count: int, suspect: set[str]) -> dict[str, pa.Array]:
    """What the plan knows of the suspect columns."""
    rows = plan.rows.slice(first, count)
    known = {"key": "key", "source_bytes": "size", "mtime": "mtime"}
    return {name: rows[planned].combine_chunks() for name, planned in known.items() if name in suspect}
