"""Jobs -> results, by actors of a Ray cluster, on its GPUs where the work wants them."""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Generic

from pipelines.pool import (
    Attempt,
    Done,
    GivenUp,
    InlinePool,
    J,
    Pool,
    Queue,
    R,
    Start,
    Work,
    device_here,
)

if TYPE_CHECKING:
    import ray
    import ray.actor

IN_FLIGHT = 2  # jobs an actor has: one that it does and one that waits there, so that it never waits for us
STARTS = 3  # times that an actor may die before its first job, until we believe that none will ever start
STALL_SECONDS = 1800.0  # a job that takes so long, and STALL_FACTOR times as long as any before, hangs
STALL_FACTOR = 5.0
WAIT_SECONDS = 1.0
# One thread each: workers share the cores among themselves. Set before numpy and torch load.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@contextmanager
def open_pool(start: Start[J, R], workers: int | None, gpu: bool) -> Iterator[Pool[J, R]]:
    """As many workers as asked for, None: as the cluster has room for, 0: this thread; for the block.

    What counts is what the cluster has now: without a GPU there, workers get none, even if it could grow to some.
    """
    if workers == 0:
        yield InlinePool(start, device_here(gpu))
        return
    with _cluster() as resources:
        gpus = int(resources.get("GPU", 0)) if gpu else 0
        room = gpus or int(resources.get("CPU", 1))
        pool: RayPool[J, R] = RayPool(start, workers or room, pinned=gpus > 0)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def _cluster() -> Iterator[dict[str, float]]:
    """Resources of the cluster that we are in, that RAY_ADDRESS names, or that starts here for the block."""
    import ray  # 0.7 s that commands without workers do not wait

    ours = not ray.is_initialized()
    if ours:
        logging.getLogger("ray").setLevel(logging.ERROR)  # its own level comes too late for some lines
        with _keeping_sigterm():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield resources
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Nobody takes SIGTERM over in the block.

    Ray does so twice while it starts, without an option not to: its handlers kill the processes that it is waiting
    for, and what comes of that is an abort, an exit code of theirs, or nothing at all.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler can be set there
        yield
        return
    take = signal.signal

    def take_another(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number == signal.SIGTERM else take(number, handler)

    signal.signal = take_another  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = take
        if (handler := signal.getsignal(signal.SIGTERM)) is not None:
            take(signal.SIGTERM, handler)  # again: Ray has put one of C++ before it, which may abort


class _Actor(Generic[J, R]):
    """A worker in a process of its own."""

    def __init__(self, start: Start[J, R], device: str) -> None:
        self._work: Work[J, R] = start(device)

    def ready(self) -> None:
        """Returns once the worker is loaded."""

    def do(self, job: J) -> R:
        return self._work(job)


@dataclass
class _Worker(Generic[J]):
    """An actor and what it has been given, in order."""

    actor: "ray.actor.ActorHandle[_Actor[J, Any]]"
    ready: "ray.ObjectRef[Any] | None"  # None once it has started
    given: "deque[tuple[ray.ObjectRef[Any], Attempt[J]]]" = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)  # when it began with the first of `given`

    @property
    def awaited(self) -> "ray.ObjectRef[Any] | None":
        """What it will have done next. Actors do one thing at a time, in order."""
        return self.ready or (self.given[0][0] if self.given else None)


class RayPool(Generic[J, R]):
    """A `Pool` of actors. Ray never restarts one or repeats a job: only we know what has been finished."""

    def __init__(
        self, start: Start[J, R], size: int, pinned: bool, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._start, self._size, self._pinned = start, size, pinned
        self._stall_seconds = stall_seconds
        self._slowest = 0.0  # seconds that the slowest job so far has taken
        self._failed_starts = 0
        self._workers: list[_Worker[J]] = []

    def run(self, jobs: Iterable[J], stopping: Event) -> Iterator[Done[J, R] | GivenUp[J]]:
        import ray

        queue: Queue[J] = Queue(iter(jobs))
        while True:
            if not stopping.is_set():
                self._feed(queue)
            if not any(worker.given for worker in self._workers) and (
                stopping.is_set() or not queue.holds(1)
            ):
                return  # some may not have started: for them the cluster had no room
            awaited = {worker.awaited: worker for worker in self._workers if worker.awaited is not None}
            finished, _ = ray.wait(list(awaited), timeout=WAIT_SECONDS)
            for ref in finished:
                yield from self._settle(awaited[ref], queue, stopping)
            for worker in [worker for worker in self._workers if self._stalls(worker)]:
                yield from self._bury(worker, queue, f"no end after {time.monotonic() - worker.since:.0f} s")

    def close(self) -> None:
        """Gives GPUs and memory back at once: idle actors would keep them from whoever comes next."""
        import ray

        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers = []

    def _feed(self, queue: Queue[J]) -> None:
        """First one job for each worker that has started, then a second where there are still enough for all."""
        while len(self._workers) < self._size and queue.holds(1 + sum(not w.given for w in self._workers)):
            self._workers.append(self._hired())
        started = [worker for worker in self._workers if worker.ready is None]
        for depth in range(IN_FLIGHT):
            for worker in started:
                if len(worker.given) > depth or not queue.holds(1 if depth == 0 else self._size):
                    continue
                attempt = queue.take()
                assert attempt is not None
                if not worker.given:
                    worker.since = time.monotonic()
                worker.given.append((worker.actor.do.remote(attempt.job), attempt))

    def _hired(self) -> _Worker[J]:
        import ray

        options = {
            "num_cpus": 1,
            "num_gpus": 1 if self._pinned else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            # A worker without a GPU would see them all.
            "runtime_env": {"env_vars": {} if self._pinned else {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}},
        }
        make: Any = ray.remote(_Actor).options(**options)  # Ray's types do not know its generated methods
        actor = make.remote(self._start, "cuda:0" if self._pinned else "cpu")
        return _Worker(actor, actor.ready.remote())

    def _settle(
        self, worker: _Worker[J], queue: Queue[J], stopping: Event
    ) -> Iterator[Done[J, R] | GivenUp[J]]:
        """Takes in what a worker has finished."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        assert worker.awaited is not None
        try:
            result: R = ray.get(worker.awaited)
        except RayTaskError as error:  # the work raised: the actor lives
            if isinstance(error.cause, OSError):
                raise error.cause from error
            _, attempt = worker.given.popleft()
            given_up = queue.crashed(attempt, f"{type(error.cause).__name__}: {error.cause}")
            if given_up is not None:
                yield given_up
        except RayError as error:
            yield from self._bury(worker, queue, str(error).strip().rpartition("\n")[2])
        else:
            self._failed_starts = 0
            if worker.ready is not None:
                worker.ready = None
            else:
                _, attempt = worker.given.popleft()
                self._slowest = max(self._slowest, time.monotonic() - worker.since)
                yield Done(attempt.job, result)
        worker.since = time.monotonic()

    def _bury(self, worker: _Worker[J], queue: Queue[J], why: str) -> Iterator[GivenUp[J]]:
        """Blames a worker's death on the job that it was doing; the one that waited there is innocent."""
        import ray

        ray.kill(worker.actor)
        self._workers.remove(worker)
        if worker.ready is not None:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ChildProcessError(
                    f"{self._failed_starts} workers in a row died while they started: {why}"
                )
        elif worker.given:
            _, attempt = worker.given.popleft()
            given_up = queue.crashed(attempt, why)
            if given_up is not None:
                yield given_up
        for _, attempt in reversed(worker.given):
            queue.put_back(attempt)

    def _stalls(self, worker: _Worker[J]) -> bool:
        patience = max(self._stall_seconds, STALL_FACTOR * self._slowest)
        return bool(worker.given) and worker.ready is None and time.monotonic() - worker.since > patience
