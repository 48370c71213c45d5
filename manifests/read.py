"""Parts -> records: in few range reads, and with every damaged record named."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.mending import mended
from manifests.part import (
    SCHEMA,
    Damaged,
    Origin,
    Part,
    blocks_of,
    metadata_of,
    records_of,
    short_hash,
)
from manifests.recent import Recent
from manifests.records import Record
from manifests.salvage import DAMAGE, NO_ANSWER, promised, salvaged
from manifests.sparse import Bitstreams, Sparse, group_extent, head_extent
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
            table = file.read(use_threads=False)  # see Source.read
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
    except NO_ANSWER:
        raise
    except DAMAGE:
        return None


def read_records(store: Store, part: Part, keys: frozenset[str] | None = None) -> Iterator[Record | Damaged]:
    """The part's records, or those of some keys, each once, in the order of the part.

    A record that cannot be had intact comes as `Damaged`, whatever part of the file is damaged; a record
    whose caption alone is lost comes without it, followed by a `Damaged` that says so. Keys that an intact
    part does not hold are left out.
    """
    if keys is not None and part.size <= _LARGEST_BYTES and not read_at_once(part, len(keys), store):
        found = _few(store, part, keys)
        if found is not None:
            yield from found
            return
    path = f"images/{part.path}"
    try:
        content = store.read_range(path, 0, part.size) if part.size <= WHOLE_BYTES else store.read(path)
        table = _intact(content, part)
        if table is None and part.size <= WHOLE_BYTES:
            content = store.read(path)  # the size in the log may be what is damaged
            table = _intact(content, part)
    except FileNotFoundError:
        yield from promised(store, part, keys, frozenset(), "part missing")
        return
    if table is not None:
        yield from records_of(table if keys is None else _of_keys(table, keys))
    else:
        yield from salvaged(store, part, content, keys)


def read_at_once(part: Part, keys: int, store: Store) -> bool:
    """Whether so many keys of the part are got by one request for all of it."""
    known = isinstance(store, Recent) and store.holds(
        f"images/{part.path}", part.size - FOOTER_BYTES, part.size
    )
    return 2 * keys >= part.records or (part.size <= WHOLE_BYTES and not known)


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


def read_columns(store: Store, part: Part, columns: list[str], tail_bytes: int) -> pa.Table | None:
    """Some columns of all rows, never the bitstream, from few bytes; None where a page fails its CRC or is lost.

    One request for the last `tail_bytes`, which hold the footer, and one for each row group before them.
    """
    if part.size > _LARGEST_BYTES:
        return None
    try:
        sparse = Sparse.open(store, part, tail_bytes)
        Origin.of(sparse.metadata)
        groups = list(range(sparse.metadata.num_row_groups))
        if sparse.metadata.schema.names != SCHEMA.names or sparse.metadata.num_rows != part.records:
            return None
        sparse.fetch([head_extent(sparse.metadata, group) for group in groups])
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        return pa.concat_tables(
            [sparse.source.read(group, columns, verify=True).cast(schema) for group in groups]
        )
    except NO_ANSWER:
        raise
    except DAMAGE:
        return None


def _few(store: Store, part: Part, keys: frozenset[str]) -> list[Record | Damaged] | None:
    """The records of some keys, from as few bytes as hold them; None where anything is not as it should."""
    try:
        sparse = Sparse.open(store, part, FOOTER_BYTES)
        if sparse.metadata.num_rows != part.records:
            return None
        tables = _rows_of_keys(sparse, keys, _groups_with(sparse.metadata, keys))
        found = [record for table in tables for record in records_of(table)]
    except NO_ANSWER:
        raise
    except DAMAGE:
        return None
    return None if any(isinstance(record, Damaged) for record in found) else found


def _rows_of_keys(sparse: Sparse, keys: frozenset[str], groups: list[int]) -> list[pa.Table]:
    """In two rounds of reads: what says where the bitstreams lie, then the blocks that they lie in."""
    blocks = {group: blocks_of(sparse.metadata, group) for group in groups}
    heads = {group: crcs for group, crcs in blocks.items() if crcs is not None}
    sparse.fetch(
        [(head_extent if group in heads else group_extent)(sparse.metadata, group) for group in groups]
    )
    names = SCHEMA.names[:-1]
    tables, needed, wanted = {}, [], {}
    for group in groups:
        if group not in heads:
            tables[group] = _of_keys(sparse.source.read(group, SCHEMA.names, verify=True), keys)
            continue
        table = sparse.source.read(group, names, verify=True)
        chosen = np.flatnonzero(pc.is_in(table["key"], value_set=pa.array(sorted(keys), pa.string())))
        tables[group] = table.take(pa.array(chosen))
        places = Bitstreams.of(sparse.metadata, group, table["bitstream_bytes"], heads[group])
        needed += [extent for row in chosen.tolist() for extent in places.blocks(row)]
        wanted[group] = places, chosen.tolist()
    sparse.fetch(sorted(set(needed)))
    for group, (places, rows) in wanted.items():
        values = [
            None if length is None else places.read(sparse.content, row)
            for row, length in zip(rows, tables[group]["bitstream_bytes"].to_pylist(), strict=True)
        ]
        tables[group] = tables[group].append_column(SCHEMA.field("bitstream"), pa.array(values, pa.binary()))
    return [tables[group] for group in groups]


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
