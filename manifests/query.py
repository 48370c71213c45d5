"""SQL over the records' columns, through DataFusion; payloads are not read by SQL: it checks no CRC."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import DeltaError

from manifests.archive import Archive
from manifests.part import SCHEMA, Damaged, table_of
from manifests.read import read_records
from manifests.records import Record

TABLE = "records"  # what SQL calls the archive's table
_PROBE = ", ".join(f"count({name})" for name in SCHEMA.names if name not in ("digest", "bitstream"))
_BATCH_RECORDS = 50_000


def query(archive: Archive, sql: str, tell: Callable[[Damaged], None]) -> pa.Table:
    """The rows that `sql` selects from the table `records`; ValueError that says what is wrong with it.

    Where a part is lost or damaged, all parts are read with their checks, the SQL runs over the records that
    are intact, and `tell` hears of each of the others.
    """
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
