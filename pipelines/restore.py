"""Rows of an archive -> image files that say they are reconstructions."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag

from manifests.archive import Archive
from pipelines.codec import LoadCodec
from pipelines.decode import Decoder, Lost, Restored, decode_readings
from pipelines.gpu_pool import open_pool
from pipelines.pool import Done, Pool, Start, device_here
from pipelines.prices import Prices, load_prices
from pipelines.reading import Missing, Search
from pipelines.restore_plan import Prepared, RestoreJob, RestorePlan, prepare
from pipelines.restore_worker import (
    Kept,
    Outcome,
    Outcomes,
    RestoreSetup,
    RestoreTask,
    RestoreWorker,
    Written,
)
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

_TASK_IMAGES = 256  # of a worker of a cluster


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
    return prepare(job, prices).plan


def restore(job: RestoreJob, load_codec: LoadCodec, weights_cache: Path) -> Iterator[Event]:
    """Planned, then each row as written, kept or lost, then finished. ValueError for a job that makes no sense."""
    started, counts = time.monotonic(), _Counts()
    prepared = prepare(job, load_prices())
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


def _outcomes(
    workers: int | None, gpu: bool, setup: RestoreSetup, prepared: Prepared, stopping: Flag
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
