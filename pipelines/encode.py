"""A source -> an archive: unfinished runs are finished, then what is new or has changed is encoded."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event as Flag

from manifests.archive import Archive, Summary, create, exists
from manifests.commit import adoptable, commit, settled
from manifests.part import Part
from manifests.plan import Plan, shards_of
from manifests.read import origin_of, read_whole
from manifests.records import CodecSpec
from manifests.storage import Location, connect
from pipelines.codec import LoadCodec
from pipelines.gpu_pool import open_pool
from pipelines.listing import Changes, Selection, check_apart, plan_run
from pipelines.pool import Done, GivenUp, Pool
from pipelines.stopping import until_told_to_stop
from pipelines.worker import (
    EncodeSetup,
    EncodeTask,
    PlannedImage,
    ShardResult,
    start_encoder,
    write_crash,
)

SHARD_RECORDS = 2_000  # at most, unless the user says otherwise
LEAST_SHARD_RECORDS = 32
SHARDS_A_WORKER = 4  # at least, where there are images enough: the last shards decide how long workers idle
COMMIT_PARTS, COMMIT_SECONDS = 32, 15.0  # a commit holds so many parts, or those of so many seconds


@dataclass(frozen=True)
class EncodeJob:
    """What the user asks for."""

    source: Location
    archive: Location
    spec: CodecSpec
    weights: Mapping[str, Path] = field(default_factory=dict)  # sha256 -> local file, copied into the archive
    captions: str = "none"  # see pipelines/captions.py
    caption_table: Location | None = None
    reads_caption: bool = False  # the codec decodes from the caption
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int | None = 0  # None: as many as the cluster has room for; 0: this process
    shard_records: int = SHARD_RECORDS
    retry_failures: bool = False
    digest: bool = False
    gpu: bool = False  # the codec runs best on one

    def check(self) -> None:
        """ValueError where the parts do not go together."""
        check_apart(self.source, self.archive)
        if self.reads_caption and self.captions == "none":
            raise ValueError("captions 'none', expected sidecar or table: this codec decodes from captions")
        if (self.captions == "table") != (self.caption_table is not None):
            raise ValueError(
                f"captions {self.captions!r} and table {self.caption_table}, expected both or neither"
            )
        if self.shard_records < 1:
            raise ValueError(f"shards of {self.shard_records} records, expected 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"{self.workers} workers, expected 0 or more")

    @property
    def selection(self) -> Selection:
        return Selection(self.include, self.exclude)


@dataclass(frozen=True)
class Planned:
    """The source was listed; `run` is None where nothing is new."""

    run: str | None
    changes: Changes


@dataclass(frozen=True)
class Adopted:
    """An unfinished run goes on; so many finished parts of it had not been committed."""

    run: str
    parts: int
    done: int  # rows of its plan
    total: int


@dataclass(frozen=True)
class ShardDone:
    """A part lies in the archive."""

    result: ShardResult
    done: int  # rows of the plan
    total: int


@dataclass(frozen=True)
class Finished:
    """The end; `complete` is False where it was told to stop before all was done."""

    complete: bool
    runs: tuple[str, ...]  # that were finished
    images: int  # that this call encoded
    failures: int
    pixels: int
    source_bytes: int
    bitstream_bytes: int
    seconds: float


Event = Planned | Adopted | ShardDone | Finished


def encode(job: EncodeJob, load_codec: LoadCodec) -> Iterator[Event]:
    """Encodes what the archive lacks, and says how it goes. Called again after any end, it goes on from there.

    SIGTERM, in the main thread: what workers have been given is finished and committed, the rest is left.
    """
    job.check()
    archive = _opened(job)
    with until_told_to_stop() as stopping, ExitStack() as stack:
        driver = _Driver(job, archive, load_codec, stopping, stack)
        for run, summary in archive.runs().items():
            if summary is None:
                plan = archive.plan(run)
                if (plan.head.source, plan.head.spec) == (str(job.source), job.spec.id):
                    yield from driver.resume(plan)
        if not stopping.is_set():
            new, changes = plan_run(
                archive,
                job.source,
                job.spec,
                job.selection,
                job.captions,
                job.caption_table,
                job.digest,
                partial(shard_records, job),
                job.retry_failures,
            )
            yield Planned(new.run if new else None, changes)
            if new is not None:
                yield from driver.finish(new, frozenset())
        yield driver.finished()


def shard_records(job: EncodeJob, images: int) -> int:
    """How many records a shard has at most, so that no worker waits long for the last one."""
    workers = job.workers or os.cpu_count() or 1
    return min(job.shard_records, max(LEAST_SHARD_RECORDS, -(-images // (SHARDS_A_WORKER * workers))))


def _opened(job: EncodeJob) -> Archive:
    """The archive, with the spec and the weights that decoding will need: before its first part."""
    next(connect(job.source).list(), None)  # no archive is begun for a source that is not there
    archive = Archive(job.archive) if exists(job.archive) else create(job.archive)
    archive.write_spec(job.spec)
    if job.weights:
        from pipelines.weights import store_weights

        store_weights(archive, job.weights)
    return archive


@dataclass
class _Driver:
    """Takes plans to their end, with one pool that starts when there is something to do."""

    job: EncodeJob
    archive: Archive
    load_codec: LoadCodec
    stopping: Flag
    stack: ExitStack
    started: float = field(default_factory=time.monotonic)
    totals: Counter[str] = field(default_factory=Counter)
    runs: list[str] = field(default_factory=list)
    complete: bool = True
    opened: Pool[EncodeTask, ShardResult] | None = None

    def pool(self) -> Pool[EncodeTask, ShardResult]:
        if self.opened is None:
            job = self.job
            setup = EncodeSetup(
                job.source,
                job.archive,
                job.spec,
                job.weights,
                Path.home() / ".cache/archiver",
                job.reads_caption,
                self.load_codec,
            )
            self.opened = self.stack.enter_context(
                open_pool(partial(start_encoder, setup), job.workers, job.gpu)
            )
        return self.opened

    def resume(self, plan: Plan) -> Iterator[Event]:
        """Goes on with a run that an earlier call has left unfinished."""
        self.archive.refresh()
        adopted = commit(self.archive, plan, adoptable(self.archive, plan))
        yield Adopted(plan.run, len(adopted), self._covered(plan), len(plan))
        yield from self.finish(plan, settled(self.archive, plan))

    def finish(self, plan: Plan, settled_keys: frozenset[str]) -> Iterator[Event]:
        """Encodes and commits all that the table lacks of the plan, but for the keys that it has by now."""
        known: dict[str, ShardResult] = {}  # by the path of the part
        pending: list[Part] = []
        committed_at = time.monotonic()
        done = self._covered(plan)
        tasks = [] if done == len(plan) else self.pool().run(self._tasks(plan, settled_keys), self.stopping)
        for outcome in tasks:
            result = self._result(outcome)
            known[result.part.path] = result
            pending.append(result.part)
            done += result.part.last - result.part.first + 1
            yield ShardDone(result, done, len(plan))
            if len(pending) >= COMMIT_PARTS or time.monotonic() - committed_at > COMMIT_SECONDS:
                commit(self.archive, plan, pending)
                pending, committed_at = [], time.monotonic()
        commit(self.archive, plan, pending)
        if self._covered(plan) == len(plan):
            self.archive.write_summary(summarise(self.archive, plan, known))
            self.runs.append(plan.run)
        else:
            self.complete = False

    def _covered(self, plan: Plan) -> int:
        """Rows of the plan that the table holds, as of the archive's version."""
        return sum(last - first + 1 for first, last in self.archive.ranges(plan.run))

    def _tasks(self, plan: Plan, settled_keys: frozenset[str]) -> Iterator[EncodeTask]:
        for shard in shards_of(plan, self.archive.ranges(plan.run)):
            rows = plan.rows.slice(shard.first, len(shard)).select(["key", "size", "mtime", "caption"])
            images = (
                PlannedImage(row, *columns)
                for row, columns in enumerate(zip(*(c.to_pylist() for c in rows), strict=True), shard.first)
            )
            missing = tuple(image for image in images if image.key not in settled_keys)
            yield EncodeTask(shard, missing, plan.head.spec, plan.head.captions, plan.head.digest)

    def _result(self, outcome: Done[EncodeTask, ShardResult] | GivenUp[EncodeTask]) -> ShardResult:
        match outcome:
            case Done(_, result):
                pass
            case GivenUp(task, why):
                result = write_crash(self.archive.store, task, why)
        self.totals.update(
            images=result.images,
            failures=result.failures,
            pixels=result.pixels,
            source_bytes=result.source_bytes,
            bitstream_bytes=result.bitstream_bytes,
        )
        return result

    def finished(self) -> Finished:
        """What this call did."""
        totals = self.totals
        return Finished(
            complete=self.complete and not self.stopping.is_set(),
            runs=tuple(self.runs),
            images=totals["images"],
            failures=totals["failures"],
            pixels=totals["pixels"],
            source_bytes=totals["source_bytes"],
            bitstream_bytes=totals["bitstream_bytes"],
            seconds=time.monotonic() - self.started,
        )


def summarise(archive: Archive, plan: Plan, known: Mapping[str, ShardResult]) -> Summary:
    """What the table holds of a run; parts that this call has not made itself are read."""
    images, failures = 0, 0
    seconds: Counter[str] = Counter()
    for part in archive.parts.values():
        if part.run != plan.run:
            continue
        if part.path in known:
            failed, origin = known[part.path].failures, known[part.path].origin
        else:
            content = archive.store.read(f"images/{part.path}")
            table = read_whole(content)
            if table is None:
                raise ValueError(f"images/{part.path} is damaged: run `archiver verify`")
            failed, origin = len(table) - table["failure"].null_count, origin_of(content)
        images += part.records - failed
        failures += failed
        seconds[origin.device] += origin.encode_seconds  # type: ignore[assignment]
    vouched = {
        path
        for run, summary in archive.runs().items()
        if summary
        for path in archive.summary(summary).objects
    }
    finished = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    objects = dict(archive.unvouched(vouched))
    return Summary(plan.run, finished, images, failures, dict(seconds), objects)
