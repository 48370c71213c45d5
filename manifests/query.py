"""SQL over the records' columns, through DataFusion; payloads are not read by SQL: it checks no CRC."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import DeltaError

from manifests.archive import Archive
from manifests.lookup import Lookup
from manifests.part import SCHEMA, Damaged, Part, table_of
from manifests.read import FOOTER_BYTES, WHOLE_BYTES, read_columns, read_records
from manifests.records import Record
from manifests.storage import LOCAL

TABLE = "records"  # what SQL calls the archive's table
_NAMES = [name for name in SCHEMA.names if name not in ("digest", "bitstream")]
_PROBE = ", ".join(f"count({name})" for name in _NAMES)
_BATCH_RECORDS = 50_000
_OWN_PARTS = 500  # on S3, conditions over more are left to DataFusion, which skips parts by bounds of the key
_THREADS = 8  # that wait for S3


def query(
    archive: Archive, sql: str, tell: Callable[[Damaged], None], keys: frozenset[str] | None = None
) -> pa.Table:
    """The rows that `sql` selects from the table `records`; ValueError that says what is wrong with it.

    Where a part is lost or damaged, all parts are read with their checks, the SQL runs over the records that
    are intact, and `tell` hears of each of the others. `keys`: the only ones that `sql` asks for.
    """
    if archive.location.scheme != LOCAL:
        parts = list(archive.parts.values()) if keys is None else _holding(archive, keys)
        if len(parts) <= _OWN_PARTS:
            with tempfile.TemporaryDirectory(prefix="archiver-") as folder:
                try:
                    return _run(_copied(archive, parts, Path(folder), tell), sql)
                except _QueryError as error:
                    raise ValueError(str(error)) from error
    try:
        return _run(archive.table, sql)
    except _QueryError as error:
        if error.planning or _readable(archive.table):
            raise ValueError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="archiver-") as folder:
        try:
            return _run(_salvaged(archive, Path(folder), tell), sql)
        except _QueryError as error:
            raise ValueError(str(error)) from error


class _QueryError(Exception):
    def __init__(self, message: str, planning: bool) -> None:
        super().__init__(" ".join(message.split())[:300])
        self.planning = planning  # False: the SQL is sound as far as one sees without data


def _run(table: DeltaTable, sql: str) -> pa.Table:
    try:
        batches = QueryBuilder().register(TABLE, table).execute(sql)
    except DeltaError as error:
        raise _QueryError(str(error), planning=True) from error
    try:
        return pa.table(batches.read_all())
    except BaseException as error:
        # The reader raises bare Exceptions for damaged files; a panic of its Rust code is a BaseException.
        if type(error) not in (Exception, DeltaError) and type(error).__name__ != "PanicException":
            raise
        raise _QueryError(str(error), planning=False) from error


def _readable(table: DeltaTable) -> bool:
    """Whether all columns that SQL may ask for can be read."""
    try:
        _run(table, f"SELECT {_PROBE} FROM {TABLE}")
    except _QueryError:
        return False
    return True


def _holding(archive: Archive, keys: frozenset[str]) -> list[Part]:
    """The parts that may hold one of the keys."""
    lookup = Lookup(archive.parts.values())
    found = {part.path: part for key in keys for part in lookup.candidates(key)}
    return list(found.values())


def _copied(archive: Archive, parts: list[Part], folder: Path, tell: Callable[[Damaged], None]) -> DeltaTable:
    """A local table of the parts' intact records, without bitstreams: DataFusion takes five requests a part.

    We take two at most, or one for a part that is all of a small archive, and check every page.
    """
    whole = sum(part.size for part in parts) <= WHOLE_BYTES

    def read(part: Part) -> tuple[pa.Table, list[Damaged]]:
        found = read_columns(archive.store, part, _NAMES, WHOLE_BYTES if whole else FOOTER_BYTES)
        return _intact_columns(archive, part) if found is None else (found, [])

    write_deltalake(str(folder), SCHEMA.empty_table().select(_NAMES))
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: list[pa.Table] = []
        for table, damaged in threads.map(read, parts):
            for one in damaged:
                tell(one)
            waiting.append(table)
            if sum(map(len, waiting)) >= _BATCH_RECORDS:
                write_deltalake(str(folder), pa.concat_tables(waiting), mode="append")
                waiting = []
        if waiting:
            write_deltalake(str(folder), pa.concat_tables(waiting), mode="append")
    return DeltaTable(str(folder))


def _intact_columns(archive: Archive, part: Part) -> tuple[pa.Table, list[Damaged]]:
    """Of a damaged part."""
    found = list(read_records(archive.store, part))
    records = table_of([record for record in found if isinstance(record, Record)], part.run)
    return records.select(_NAMES), [record for record in found if isinstance(record, Damaged)]


def _salvaged(archive: Archive, folder: Path, tell: Callable[[Damaged], None]) -> DeltaTable:
    """A table of all intact records, without their bitstreams."""
    write_deltalake(str(folder), SCHEMA.empty_table())
    for records in _intact(archive, tell):
        for run in sorted(records):
            kept = table_of(records[run], run).drop_columns(["bitstream", "digest"])
            write_deltalake(str(folder), kept, mode="append", schema_mode="merge")
    return DeltaTable(str(folder))


def _intact(archive: Archive, tell: Callable[[Damaged], None]) -> Iterator[dict[str, list[Record]]]:
    """Run -> intact records, in batches."""
    batch: dict[str, list[Record]] = {}
    count = 0
    for part in archive.parts.values():
        for found in read_records(archive.store, part):
            if isinstance(found, Record):
                batch.setdefault(part.run, []).append(found)
                count += 1
            else:
                tell(found)
        if count >= _BATCH_RECORDS:
            yield batch
            batch, count = {}, 0
    if batch:
        yield batch
