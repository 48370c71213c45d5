import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pipelines.gpu_pool import RayPool, open_pool
from pipelines.pool import GIVE_UP_AFTER, Attempt, Done, GivenUp, InlinePool, Pool, Queue, workers_here


@dataclass(frozen=True)
class Numbers:
    """A `Job`."""

    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def halves(self) -> tuple["Numbers", "Numbers"]:
        middle = len(self.numbers) // 2
        return Numbers(self.numbers[:middle]), Numbers(self.numbers[middle:])


@dataclass(frozen=True)
class Worked:
    """What a worker saw."""

    numbers: tuple[int, ...]
    process: int
    gpus: str | None
    threads: str | None
    device: str


KILLS, RAISES, UNREACHABLE, HANGS = -1, -2, -3, -4


def start(journal: Path, device: str, together: int = 1) -> Callable[[Numbers], Worked]:
    """A worker that notes each job that it begins, and starts once as many as `together` have begun to."""
    starts = journal.with_name("starts")
    with starts.open("a") as file:
        file.write("x")
    patient_until = time.monotonic() + 60
    while starts.stat().st_size < together and time.monotonic() < patient_until:
        time.sleep(0.01)

    def work(job: Numbers) -> Worked:
        with journal.open("a") as file:
            file.write(f"{os.getpid()} {job.numbers}\n")
        time.sleep(0.02)
        for number in job.numbers:
            if number == KILLS:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == RAISES:
                raise RuntimeError(f"two\nlines of {number}")
            if number == UNREACHABLE:
                raise ConnectionError("the store is gone")
            if number == HANGS:
                time.sleep(3600)
        environment = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")
        return Worked(job.numbers, os.getpid(), *environment, device)

    return work


def start_nothing(device: str) -> Callable[[Numbers], Worked]:
    raise ValueError("weights of another codec")


def jobs(count: int, size: int = 4, special: dict[int, int] | None = None) -> list[Numbers]:
    numbers = [(special or {}).get(number, number) for number in range(count * size)]
    return [Numbers(tuple(numbers[first : first + size])) for first in range(0, len(numbers), size)]


def run_all(
    pool: Pool[Numbers, Worked], todo: list[Numbers], stopping: threading.Event | None = None
) -> tuple[list[Worked], list[GivenUp[Numbers]]]:
    outcomes = list(pool.run(todo, stopping or threading.Event()))
    done = [outcome.result for outcome in outcomes if isinstance(outcome, Done)]
    return done, [outcome for outcome in outcomes if isinstance(outcome, GivenUp)]


def numbers_of(done: list[Worked]) -> list[int]:
    return sorted(number for worked in done for number in worked.numbers)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def begun(journal: Path) -> list[str]:
    """Jobs that were begun, in order."""
    return [line.partition(" ")[2] for line in journal.read_text().splitlines()]


def test_a_job_is_tried_whole_then_in_halves_and_a_single_image_is_given_up() -> None:
    queue = Queue(iter([Numbers((1, 2, 3))]))
    first = queue.take()
    assert first == Attempt(Numbers((1, 2, 3)))
    assert queue.crashed(first, "x") is None
    second = queue.take()
    assert second == Attempt(Numbers((1, 2, 3)), 1)
    assert queue.crashed(second, "x") is None
    one, two = queue.take(), queue.take()
    assert (one, two) == (Attempt(Numbers((1,)), 2), Attempt(Numbers((2, 3)), 2))
    assert one is not None
    assert queue.crashed(one, "two\nlines") == GivenUp(Numbers((1,)), "two lines")
    assert queue.take() is None


def test_a_job_of_one_image_is_tried_three_times() -> None:
    queue, tries = Queue(iter([Numbers((1,))])), 0
    while (attempt := queue.take()) is not None:
        tries += 1
        given_up = queue.crashed(attempt, "x")
    assert given_up == GivenUp(Numbers((1,)), "x")
    assert tries == GIVE_UP_AFTER == 3


def test_a_queue_draws_no_more_jobs_than_it_is_asked_about() -> None:
    source = iter(jobs(100))
    queue = Queue(source)
    assert queue.holds(3)
    assert len(list(source)) == 97
    assert not queue.holds(4)


def test_inline_what_a_job_raises_costs_one_image(journal: Path) -> None:
    pool = InlinePool(partial(start, journal), "cpu")
    done, given_up = run_all(pool, jobs(4, special={6: RAISES}))
    assert numbers_of(done) == [n for n in range(16) if n != 6]
    assert given_up == [GivenUp(Numbers((RAISES,)), "RuntimeError: two lines of -2")]


def test_inline_a_store_that_is_gone_ends_the_run(journal: Path) -> None:
    with pytest.raises(ConnectionError, match="the store is gone"):
        run_all(InlinePool(partial(start, journal), "cpu"), jobs(4, special={6: UNREACHABLE}))
    assert len(begun(journal)) == 2


def test_no_workers_is_this_process(journal: Path) -> None:
    with open_pool(partial(start, journal), workers=0, gpu=True) as pool:
        done, _ = run_all(pool, jobs(3))
    assert {worked.process for worked in done} == {os.getpid()}
    assert numbers_of(done) == list(range(12))


@contextmanager
def ray_pool(
    journal: Path, size: int = 2, pinned: bool = False, stall: float = 60
) -> Iterator[RayPool[Numbers, Worked]]:
    work = partial(start, journal, together=size)
    pool: RayPool[Numbers, Worked] = RayPool(work, size, pinned, stall)
    try:
        yield pool
    finally:
        pool.close()


def test_gpu_workers_are_pinned_to_one_gpu_each(journal: Path, ray_cluster: str) -> None:
    with open_pool(partial(start, journal, together=2), workers=None, gpu=True) as pool:
        done, _ = run_all(pool, jobs(20))
    assert numbers_of(done) == list(range(80))
    assert len({worked.process for worked in done}) == 2
    assert {worked.gpus for worked in done} == {"0", "1"}
    assert {worked.device for worked in done} == {"cuda:0"}


def test_cpu_workers_see_no_gpu_and_run_one_thread(journal: Path, ray_cluster: str) -> None:
    with open_pool(partial(start, journal, together=2), workers=2, gpu=False) as pool:
        done, _ = run_all(pool, jobs(20))
    assert len({worked.process for worked in done}) == 2
    assert {(worked.gpus, worked.threads, worked.device) for worked in done} == {("", "1", "cpu")}


def test_gpus_are_free_again_as_soon_as_a_pool_is_closed(journal: Path, ray_cluster: str) -> None:
    for _ in range(2):
        with open_pool(partial(start, journal), workers=None, gpu=True) as pool:
            started = time.monotonic()
            done, _ = run_all(pool, jobs(4))
            assert time.monotonic() - started < 30
            assert numbers_of(done) == list(range(16))


def test_workers_are_kept_from_one_run_to_the_next(journal: Path, ray_cluster: str) -> None:
    with ray_pool(journal) as pool:
        first, _ = run_all(pool, jobs(10))
        second, _ = run_all(pool, jobs(10))
    processes = {worked.process for worked in first}
    assert len(processes) == 2
    assert {worked.process for worked in second} == processes


@pytest.mark.parametrize("gpu", [False, True])
def test_workers_for_whom_the_cluster_has_no_room_hold_nothing_up(
    journal: Path, ray_cluster: str, gpu: bool
) -> None:
    with open_pool(partial(start, journal), 40, gpu=gpu) as pool:
        done, given_up = run_all(pool, jobs(60))
        assert (numbers_of(done), given_up) == (list(range(240)), [])
        assert 1 <= len({worked.process for worked in done}) < 40
        stopping = threading.Event()
        stopping.set()
        assert run_all(pool, jobs(60), stopping) == ([], [])


def test_a_poison_image_kills_its_workers_and_nothing_else(journal: Path, ray_cluster: str) -> None:
    with ray_pool(journal) as pool:
        done, given_up = run_all(pool, jobs(8, special={13: KILLS, 22: RAISES}))
    assert numbers_of(done) == [n for n in range(32) if n not in (13, 22)]
    assert sorted(gone.job.numbers for gone in given_up) == [(RAISES,), (KILLS,)]
    assert all(gone.why and "\n" not in gone.why for gone in given_up)
    tries = begun(journal)
    assert tries.count("(12, -1, 14, 15)") == 2
    assert tries.count("(0, 1, 2, 3)") == 1  # finished jobs are not repeated


def test_a_worker_that_is_killed_from_outside_costs_no_image(journal: Path, ray_cluster: str) -> None:
    with ray_pool(journal) as pool:
        outcomes = pool.run(jobs(60), threading.Event())
        done = []
        for outcome in outcomes:
            assert isinstance(outcome, Done)
            done.append(outcome.result)
            if len(done) in (10, 25):
                os.kill(outcome.result.process, signal.SIGKILL)
    assert numbers_of(done) == list(range(240))
    assert len({worked.process for worked in done}) in (3, 4)


def test_a_store_that_is_gone_ends_the_run(journal: Path, ray_cluster: str) -> None:
    with ray_pool(journal) as pool, pytest.raises(ConnectionError, match="the store is gone"):
        run_all(pool, jobs(4, special={6: UNREACHABLE}))


def test_a_worker_that_hangs_is_killed_and_its_image_found(journal: Path, ray_cluster: str) -> None:
    with ray_pool(journal, size=1, stall=0.5) as pool:
        done, given_up = run_all(pool, jobs(3, size=2, special={3: HANGS}))
    assert numbers_of(done) == [0, 1, 2, 4, 5]
    (gone,) = given_up
    assert gone.job.numbers == (HANGS,)
    assert gone.why.startswith("no end after")


def test_workers_that_cannot_start_are_an_error_and_not_failures_of_images(ray_cluster: str) -> None:
    pool: RayPool[Numbers, Worked] = RayPool(start_nothing, 1, pinned=False)
    with pytest.raises(ChildProcessError, match=r"3 workers in a row.*weights of another codec"):
        run_all(pool, jobs(3))
    pool.close()


def test_told_to_stop_it_finishes_only_what_has_been_handed_out(journal: Path, ray_cluster: str) -> None:
    stopping = threading.Event()
    with ray_pool(journal) as pool:
        outcomes = pool.run(jobs(50), stopping)
        done = [next(outcomes)]
        stopping.set()
        done += outcomes
    assert 1 <= len(done) <= 4
    assert len(begun(journal)) == len(done)


def test_this_machine_has_a_worker_for_each_core_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_here("cpu") == os.cpu_count()
    monkeypatch.setattr("pipelines.pool.glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert workers_here("cuda:0") == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert workers_here("cuda:0") == 1
