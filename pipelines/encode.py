"""A source -> an archive: unfinished runs are finished, then what is new or has changed is encoded."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event as Flag

from manifests.archive import Archive, Summary, create, exists
from manifests.commit import adoptable, commit, settled
from manifests.part import Part
from manifests.plan import Plan, shards_of
from manifests.read import origin_of, read_whole
from manifests.storage import connect
from pipelines.codec import LoadCodec
from pipelines.encode_job import SHARD_RECORDS, EncodeJob
from pipelines.estimate import Estimate, estimate
from pipelines.gpu_pool import open_pool
from pipelines.listing import Changes, plan_run
from pipelines.pool import Done, GivenUp, Pool
from pipelines.stopping import until_told_to_stop
from pipelines.weights import store_weights
from pipelines.worker import (
    EncodeTask,
    ShardResult,
    planned_images,
    setup_of,
    start_encoder,
    write_crash,
)

__all__ = [
    "SHARD_RECORDS",
    "Adopted",
    "EncodeJob",
    "Estimate",
    "Event",
    "Finished",
    "Planned",
    "ShardDone",
    "encode",
    "estimate",
]

COMMIT_PARTS, COMMIT_SECONDS = 32, 15.0  # a commit holds so many parts, or those of so many seconds


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
    failures: int  # and those of an earlier call that are in `kept`
    pixels: int
    source_bytes: int
    bitstream_bytes: int
    seconds: float
    kept: Mapping[str, str]  # of the failures, keys whose older image stays in the archive -> why they failed


Event = Planned | Adopted | ShardDone | Finished


def encode(job: EncodeJob, load_codec: LoadCodec) -> Iterator[Event]:
    """Encodes what the archive lacks, and says how it goes. Called again after any end, it goes on.

    SIGTERM, in the main thread: what workers have been given is finished and committed, the rest is left.
    """
    job.check()
    archive = _opened(job)
    with until_told_to_stop() as stopping, ExitStack() as stack:
        driver = _Driver(job, archive, load_codec, stopping, stack)
        for run, summary in archive.runs().items():
            if summary is None:
                head = archive.plan_head(run)
                if (head.source, head.spec) == (str(job.source), job.spec.id):
                    yield from driver.resume(archive.plan(run))
        if not stopping.is_set():
            new, changes = plan_run(
                archive,
                job.source,
                job.spec,
                job.selection,
                job.captions,
                job.caption_table,
                job.keep,
                job.boxes,
                job.digest,
                job.records_a_shard,
                job.retry_failures,
            )
            yield Planned(new.run if new else None, changes)
            if new is not None:
                yield from driver.finish(new, frozenset())
        yield driver.finished()


def _opened(job: EncodeJob) -> Archive:
    """The archive, with the spec and the weights that decoding will need: before its first part."""
    next(connect(job.source).list(), None)  # no archive is begun for a source that is not there
    archive = Archive(job.archive) if exists(job.archive) else create(job.archive)
    archive.write_spec(job.spec)
    if job.weights:
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
    kept: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    opened: Pool[EncodeTask, ShardResult] | None = None

    def pool(self) -> Pool[EncodeTask, ShardResult]:
        if self.opened is None:
            job = self.job
            start = partial(start_encoder, setup_of(job, self.load_codec))
            self.opened = self.stack.enter_context(open_pool(start, job.workers, job.gpu))
        return self.opened

    def resume(self, plan: Plan) -> Iterator[Event]:
        """Goes on with a run that an earlier call has left unfinished."""
        self.archive.refresh()
        told = len(self.kept)
        adopted = self._commit(plan, adoptable(self.archive, plan))
        self.totals["failures"] += len(self.kept) - told  # of an earlier call, which had no time to tell
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
                self._commit(plan, pending)
                pending, committed_at = [], time.monotonic()
        self._commit(plan, pending)
        if self._covered(plan) == len(plan):
            self.archive.write_summary(summarise(self.archive, plan, known))
            self.runs.append(plan.run)
        else:
            self.complete = False

    def _commit(self, plan: Plan, parts: Sequence[Part]) -> list[Part]:
        return commit(self.archive, plan, parts, self.kept.__setitem__)

    def _covered(self, plan: Plan) -> int:
        """Rows of the plan that the table holds, as of the archive's version."""
        return sum(last - first + 1 for first, last in self.archive.ranges(plan.run))

    def _tasks(self, plan: Plan, settled_keys: frozenset[str]) -> Iterator[EncodeTask]:
        for shard in shards_of(plan, self.archive.ranges(plan.run)):
            images = planned_images(plan.rows.slice(shard.first, len(shard)), shard.first)
            missing = tuple(image for image in images if image.key not in settled_keys)
            head = plan.head
            yield EncodeTask(shard, missing, head.spec, head.captions, head.digest, head.keep)

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
            kept=dict(self.kept),
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
    vouched: set[str] = set()
    for summary in filter(None, archive.runs().values()):
        with suppress(ValueError):  # damaged: this run's summary vouches for what that one did
            vouched |= archive.summary(summary).objects.keys()
    finished = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    objects = dict(archive.unvouched(vouched))
    return Summary(plan.run, finished, images, failures, dict(seconds), objects)
