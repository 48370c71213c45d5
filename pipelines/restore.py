"""Rows of an archive -> image files that say they are reconstructions."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event as Flag

from manifests.archive import Archive
from manifests.part import BLOCK_BYTES, ROW_GROUP_RECORDS, ROW_GROUP_TEXT_BYTES, Damaged
from manifests.read import FOOTER_BYTES, read_at_once
from manifests.sparse import GAP_BYTES
from manifests.storage import S3, Location, Store
from pipelines.codec import LoadCodec
from pipelines.decode import Decoder, Lost, Restored, decode_readings, why_not_archived
from pipelines.forbidden import forbidden
from pipelines.gpu_pool import open_pool
from pipelines.images import Format
from pipelines.names import alike, names_of, why_unusable
from pipelines.pool import Done, Pool, Start, device_here
from pipelines.prices import Prices, load_prices
from pipelines.reading import NOT_THERE, Missing, Reading, Search, why_lost
from pipelines.restore_worker import (
    Kept,
    Outcome,
    Outcomes,
    RestoreSetup,
    RestoreTask,
    RestoreWorker,
    Written,
)
from pipelines.select import failures, keys_named, open_archive, select
from pipelines.stopping import until_told_to_stop

__all__ = [
    "Event",
    "Finished",
    "Kept",
    "Lost",
    "Planned",
    "RestoreJob",
    "RestorePlan",
    "Restored",
    "Written",
    "plan_restore",
    "restore",
    "restore_rows",
]

_MOST_A_KEY = (
    ROW_GROUP_TEXT_BYTES // 2 + 20 * ROW_GROUP_RECORDS + 2 * BLOCK_BYTES
)  # bytes; texts shrink by half
_ONE_READ_FOOTER = 10_000_000  # bytes of a part whose footer is less than FOOTER_BYTES
_KEYS_BY_BOUNDS = 500  # so few keys are found by the log's bounds; for more, one scan tells their runs
_CLOSED = "its file would lie in the archive or its source"
_TASK_IMAGES = 256  # of a worker of a cluster


@dataclass(frozen=True)
class RestoreJob:
    """Which rows become files, where, and of which format."""

    archive: Location
    output: Location
    where: str | None = None  # an SQL condition, see `select`
    keys: tuple[str, ...] | None = None
    limit: int | None = None
    format: Format = "png"
    overwrite: bool = False
    workers: int | None = 0  # None: as many as the cluster has room for; 0: this process
    gpu: bool = False


@dataclass(frozen=True)
class RestorePlan:
    """What a restore is going to read."""

    rows: int
    parts: int
    bytes: int  # of parts, at most
    requests: int  # GETs of parts, at most
    dollars: float  # these requests at S3's price, and a PUT for each file on S3; 0 on local disks
    lost: tuple[Lost, ...]  # keys that are no images of the archive, or that no file can be named after
    alike: tuple[str, ...]  # paths that differ in upper and lower case only: some file systems merge them


@dataclass(frozen=True)
class Planned:
    """The rows are known, and nothing has been written."""

    plan: RestorePlan


@dataclass(frozen=True)
class Finished:
    """All rows have been tried, or the process was told to stop."""

    written: int
    kept: int
    lost: int
    written_bytes: int
    decode_seconds: float | None  # of one image that was written, on average; None where none was
    seconds: float
    complete: bool


Event = Planned | Written | Kept | Lost | Finished


def restore_rows(
    archive: Archive, keys: Sequence[str], load_codec: LoadCodec, weights_cache: Path, device: str
) -> Iterator[Restored | Lost]:
    """Each key once, as pixels or as lost with a reason; in the order of the parts."""
    return decoded_rows(archive, keys, Decoder(archive, load_codec, weights_cache, device))


def decoded_rows(archive: Archive, keys: Sequence[str], decoder: Decoder) -> Iterator[Restored | Lost]:
    """As `restore_rows`, with a decoder that goes on to other rows: it keeps the codecs that it has loaded."""
    search = Search(archive.parts.values(), dict.fromkeys(keys))
    readings, gone = search.begin()
    while readings or gone:
        yield from (Lost(miss.key, miss.why) for miss in gone)
        missing: list[Missing] = []
        for outcome in decode_readings(archive.store, decoder, readings):
            if isinstance(outcome, Missing):
                missing.append(outcome)
            else:
                yield outcome
        readings, gone = search.again(missing)


def plan_restore(job: RestoreJob, prices: Prices) -> RestorePlan:
    """What `restore` would read; writes nothing."""
    return _prepared(job, prices).plan


def restore(job: RestoreJob, load_codec: LoadCodec, weights_cache: Path) -> Iterator[Event]:
    """Planned, then each row as written, kept or lost, then finished. ValueError for a job that makes no sense."""
    started, counts = time.monotonic(), _Counts()
    prepared = _prepared(job, load_prices())
    yield Planned(prepared.plan)
    yield from counts.noted(prepared.plan.lost)
    setup = RestoreSetup(job.archive, job.output, job.format, job.overwrite, weights_cache, load_codec)
    with until_told_to_stop() as stopping:
        for outcome in _outcomes(job.workers, job.gpu, setup, prepared, stopping):
            yield from counts.noted([outcome])
        complete = not stopping.is_set()
    yield Finished(
        written=counts.written,
        kept=counts.kept,
        lost=counts.lost,
        written_bytes=counts.written_bytes,
        decode_seconds=counts.decode_seconds / counts.written if counts.written else None,
        seconds=time.monotonic() - started,
        complete=complete,
    )


@dataclass
class _Counts:
    written: int = 0
    kept: int = 0
    lost: int = 0
    written_bytes: int = 0
    decode_seconds: float = 0.0  # all together

    def noted(self, outcomes: Sequence[Written | Kept | Lost]) -> Sequence[Written | Kept | Lost]:
        """The outcomes as they are, once counted."""
        for outcome in outcomes:
            self.written += isinstance(outcome, Written)
            self.kept += isinstance(outcome, Kept)
            self.lost += isinstance(outcome, Lost)
            if isinstance(outcome, Written):
                self.written_bytes += outcome.size
                self.decode_seconds += outcome.decode_seconds
        return outcomes


@dataclass(frozen=True)
class _Prepared:
    archive: Archive
    search: Search
    readings: list[Reading]
    names: Mapping[str, str]  # key -> path below the output
    plan: RestorePlan


def _prepared(job: RestoreJob, prices: Prices) -> _Prepared:
    archive = open_archive(job.archive)
    closed = forbidden(archive, job.output)
    wanted, lost = _wanted(archive, job)
    names = names_of((key for key in wanted if why_unusable(key) is None), job.format)
    names = {key: name for key, name in names.items() if not name.startswith(closed)}
    runs = {key: wanted[key] for key in names}
    lost += [Lost(key, why_unusable(key) or _CLOSED) for key in wanted if key not in names]
    search = Search(archive.parts.values(), runs)
    readings, gone = search.begin()
    lost += [Lost(miss.key, miss.why) for miss in gone]
    reads = [_reads(archive.store, reading) for reading in readings]
    requests, size_bytes = sum(count for count, _ in reads), sum(size for _, size in reads)
    standard = prices.classes["STANDARD"]
    gets = requests if job.archive.scheme == S3 else 0
    puts = len(runs) if job.output.scheme == S3 else 0
    plan = RestorePlan(
        rows=len(runs),
        parts=len({reading.part.path for reading in readings}),
        bytes=size_bytes,
        requests=requests,
        dollars=(gets * standard.get_1k.value + puts * standard.put_1k.value) / 1000,
        lost=tuple(lost),
        alike=tuple(alike(names.values())),
    )
    return _Prepared(archive, search, readings, names, plan)


def _wanted(archive: Archive, job: RestoreJob) -> tuple[dict[str, str | None], list[Lost]]:
    """Key -> its run, None where that is still to be found out; and what cannot be asked for."""
    keys = None if job.keys is None else sorted(set(job.keys))
    if job.limit is not None and job.limit < 0:
        raise ValueError(f"limit {job.limit}, expected 0 or more")
    named = keys_named(job.where) if keys is None and job.where is not None else None
    if named is not None:  # SQL would take five requests to find the part; the log's bounds take none
        keys, job = sorted(set(named)), replace(job, where=None)
    if keys is not None and job.where is None and len(keys) <= _KEYS_BY_BOUNDS:
        return dict.fromkeys(keys[: job.limit]), []
    damaged: dict[str, Damaged] = {}
    rows = select(archive, job.where, job.limit, keys, lambda found: damaged.update({found.key: found}))
    runs = dict(zip(rows["key"].to_pylist(), rows["run"].to_pylist(), strict=True))
    lost = [
        Lost(key, why_lost(found))
        for key, found in damaged.items()
        if key not in runs and (keys is None or key in set(keys))
    ]
    if keys is not None and job.where is None and job.limit is None:
        gone = [key for key in keys if key not in runs and key not in damaged]
        why = _failed(archive, gone)
        lost += [Lost(key, why.get(key, NOT_THERE)) for key in gone]
    return runs, lost


def _failed(archive: Archive, keys: Sequence[str]) -> dict[str, str]:
    """Those of the keys that are failures -> what to say of them."""
    if not keys:
        return {}
    found = failures(archive, keys=keys, tell=lambda damaged: None)
    return {row["key"]: why_not_archived(row["failure"]) for row in found.to_pylist()}


def _reads(store: Store, reading: Reading) -> tuple[int, int]:
    """Requests and bytes, at most: footers are not read to tell."""
    part, keys = reading.part, len(reading.keys)
    if read_at_once(part, keys, store):
        return 1, part.size
    # A key costs the columns of its row group and a block or two of bitstreams; both may be other keys' too.
    touched = min(keys, -(-part.size // BLOCK_BYTES))
    size_bytes = min(part.size + touched * GAP_BYTES, touched * _MOST_A_KEY)
    footer = 1 + (part.size > _ONE_READ_FOOTER)
    return footer + 2 * touched, footer * FOOTER_BYTES + size_bytes


def _outcomes(
    workers: int | None, gpu: bool, setup: RestoreSetup, prepared: _Prepared, stopping: Flag
) -> Iterator[Written | Kept | Lost]:
    with _worker(workers, gpu, setup, prepared.archive) as work:
        readings = prepared.readings
        while readings and not stopping.is_set():
            missing: list[Missing] = []
            for outcome in work(RestoreTask(tuple(readings), prepared.names), stopping):
                if isinstance(outcome, Missing):
                    missing.append(outcome)
                else:
                    yield outcome
            readings, gone = prepared.search.again(missing)
            yield from (Lost(miss.key, miss.why) for miss in gone)


_Work = Callable[[RestoreTask, Flag], Iterator[Outcome]]


@contextmanager
def _worker(workers: int | None, gpu: bool, setup: RestoreSetup, archive: Archive) -> Iterator[_Work]:
    """This process, image by image, or a pool that is handed tasks of a few hundred."""
    if workers == 0:
        worker = RestoreWorker(setup, device_here(gpu), archive)  # which knows what a condition has read
        yield lambda task, stopping: _until(stopping, worker.stream(task))
    else:
        start: Start[RestoreTask, Outcomes] = partial(RestoreWorker, setup)
        with open_pool(start, workers, gpu) as pool:
            yield lambda task, stopping: _pooled(pool, task, stopping)


def _until(stopping: Flag, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        yield outcome
        if stopping.is_set():
            return


def _pooled(pool: Pool[RestoreTask, Outcomes], task: RestoreTask, stopping: Flag) -> Iterator[Outcome]:
    for done in pool.run(task.pieces(_TASK_IMAGES), stopping):
        if isinstance(done, Done):
            yield from done.result
        else:
            yield from (Lost(key, f"crashes the worker: {done.why}") for key in done.job.keys)
