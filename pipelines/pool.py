"""Jobs -> results, each by a worker that may crash: what the pools of this process and of Ray share."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob
from itertools import islice
from threading import Event
from typing import Generic, Protocol, Self, TypeVar

GIVE_UP_AFTER = 3  # crashes of a job of one image
HALVE_AFTER = 2  # crashes of a larger one: the first may have been the machine's fault


class Job(Protocol):
    """Images that are handled together. Small and picklable."""

    def __len__(self) -> int:
        """How many images."""

    def halves(self) -> tuple[Self, Self]:
        """Two jobs that together do what this one does; asked for only where there are two images or more."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
J_contra = TypeVar("J_contra", bound=Job, contravariant=True)


class Work(Protocol[J_contra, R_co]):
    """A loaded worker: job -> result.

    An OSError means that a store cannot be reached, and ends the run. Whatever else is raised is blamed on an
    image of the job, as is the end of the process.
    """

    def __call__(self, job: J_contra, /) -> R_co: ...


Start = Callable[
    [str], Work[J, R]
]  # device ("cpu", "cuda:0") -> a loaded worker, in the worker's own process


@dataclass(frozen=True)
class Done(Generic[J, R]):
    """A job and what came of it."""

    job: J
    result: R


@dataclass(frozen=True)
class GivenUp(Generic[J]):
    """A job of one image that crashed every worker that tried it."""

    job: J
    why: str  # one line


class Pool(Protocol[J, R]):
    """Workers that keep what they have loaded from one `run` to the next."""

    def run(self, jobs: Iterable[J], stopping: Event) -> Iterator[Done[J, R] | GivenUp[J]]:
        """Each job's result, or those of the halves that it had to be cut into, in no promised order.

        Once `stopping` is set, jobs that have begun are finished and no other is.
        """


@dataclass(frozen=True)
class Attempt(Generic[J]):
    """A job, and how often it, or the job that it was cut from, has crashed."""

    job: J
    crashes: int = 0


@dataclass
class Queue(Generic[J]):
    """What is still to be done; jobs are drawn only as they are needed."""

    jobs: Iterator[J]
    again: deque[Attempt[J]] = field(default_factory=deque)

    def take(self) -> Attempt[J] | None:
        if self.again:
            return self.again.popleft()
        job = next(self.jobs, None)
        return None if job is None else Attempt(job)

    def holds(self, count: int) -> bool:
        """Whether that many jobs are left."""
        self.again.extend(Attempt(job) for job in islice(self.jobs, max(0, count - len(self.again))))
        return len(self.again) >= count

    def put_back(self, attempt: Attempt[J]) -> None:
        """For one that never began."""
        self.again.appendleft(attempt)

    def crashed(self, attempt: Attempt[J], why: str) -> GivenUp[J] | None:
        """Puts the job back, whole or in halves, or gives it up."""
        crashes = attempt.crashes + 1
        if len(attempt.job) <= 1 and crashes >= GIVE_UP_AFTER:
            return GivenUp(attempt.job, " ".join(why.split())[:200])
        if len(attempt.job) > 1 and crashes >= HALVE_AFTER:
            self.again.extend(Attempt(half, crashes) for half in attempt.job.halves())
        else:
            self.again.append(Attempt(attempt.job, crashes))
        return None


class InlinePool(Generic[J, R]):
    """A `Pool` of one worker, in this thread. What kills the process cannot be bisected here."""

    def __init__(self, start: Start[J, R], device: str) -> None:
        self._work = start(device)

    def run(self, jobs: Iterable[J], stopping: Event) -> Iterator[Done[J, R] | GivenUp[J]]:
        queue = Queue(iter(jobs))
        while not stopping.is_set() and (attempt := queue.take()) is not None:
            try:
                result = self._work(attempt.job)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a codec raises costs one image, not the run
                given_up = queue.crashed(attempt, f"{type(error).__name__}: {error}")
                if given_up is not None:
                    yield given_up
            else:
                yield Done(attempt.job, result)


def workers_here(device: str) -> int:
    """As many as this machine has cores, or GPUs where the device is one."""
    if device == "cpu":
        return os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return max(1, len(glob("/dev/nvidia[0-9]*")) if visible is None else visible.count(",") + 1)


def device_here(gpu: bool) -> str:
    """The device of a worker in this process: "cuda:0" where a GPU is wanted and there is one."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return "cuda:0" if gpu and not hidden and os.path.exists("/dev/nvidia0") else "cpu"
