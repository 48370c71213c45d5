"""Drivers and workers are killed at random points; the same command, called again, finishes what they began."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest

from manifests.archive import Archive, exists
from manifests.commit import adoptable
from manifests.storage import Location, connect, locate
from pipelines.encode import Finished, encode
from pipelines.findings import Finding
from pipelines.verify import verify
from tests.pipelines.chaos_driver import job_of
from tests.servers import S3Server
from tests.sources import check_complete, failures, fill, png
from tests.toy_codec import KILLS, REFUSED, load_toy

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parent.parent.parent
IMAGES = 66
BAD = {"a/bad.jpg": b"no image", "b/cut.png": png()[:50], "c/refused.png": png(REFUSED)}
WINDOWS = ("after PUT", "before commit", "after PUT", "before commit", "after commit")


@dataclass(frozen=True)
class Place:
    """Where one run happens."""

    source: Location
    archive: Location
    pids: Path  # of workers, one file each
    workers: int = 0

    def told(self, dies: tuple[str, int] | None, digest: bool = False, gate: int = 1) -> dict[str, object]:
        """For `chaos_driver`."""
        source, archive = ([where.url, dict(where.options)] for where in (self.source, self.archive))
        where = {"source": source, "archive": archive, "pids": str(self.pids)}
        return {**where, "workers": self.workers, "dies": dies, "digest": digest, "gate": gate}


def launch(
    told: dict[str, object], environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    """A driver that has begun."""
    command = [sys.executable, "-m", "tests.pipelines.chaos_driver", json.dumps(told)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    return driver


def kill_after(drivers: Sequence[subprocess.Popen[str]], seconds: Sequence[float]) -> list[int]:
    """Their exit codes: 0 where a driver was faster."""
    started = time.monotonic()
    for driver, delay in sorted(zip(drivers, seconds, strict=True), key=lambda pair: pair[1]):
        time.sleep(max(0.0, started + delay - time.monotonic()))
        driver.kill()
    codes = []
    for driver in drivers:
        with driver:
            codes.append(driver.wait())
    return codes


def end_of(driver: subprocess.Popen[str]) -> int:
    with driver:
        return driver.wait(timeout=120)


def change_source(source: Location, number: int) -> list[str]:
    """One new key, one that has changed; the new one."""
    store = connect(source)
    store.write("a/image0000.png", png(number=1000 + number) + bytes(1 + number))
    store.write(f"d/new{number}.png", png(number=number))
    return [f"d/new{number}.png"]


def finish_and_check(place: Place, keys: Sequence[str], failed: Sequence[str]) -> None:
    """One more call, undisturbed, and then nothing is missing, doubled or damaged."""
    job = job_of(place.told(None))
    finished = list(encode(replace(job, workers=0) if place.workers == 0 else job, load_toy))[-1]
    assert isinstance(finished, Finished)
    assert finished.complete
    check_complete(place.archive, keys)
    assert sorted(failures(place.archive)) == sorted(failed)
    again = list(encode(job, load_toy))[-1]
    assert isinstance(again, Finished)
    assert again.images == again.failures == 0
    found = list(verify(place.archive, 0.0, load_toy, place.pids))
    assert [one for one in found if isinstance(one, Finding) and not one.harmless] == []


def uncommitted_parts(archive: Location) -> int:
    if not exists(archive):
        return 0
    found = Archive(archive)
    return sum(len(adoptable(found, found.plan(run))) for run in found.runs())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("source", "pids"):
        (tmp_path / name).mkdir()
    return Place(locate(f"{tmp_path}/source"), locate(f"{tmp_path}/archive"), tmp_path / "pids")


@pytest.mark.parametrize("seed", range(15))
def test_a_driver_dies_between_put_and_commit(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    keys = fill(place.source, IMAGES, BAD)
    for number in range(chance.randint(1, 2)):
        where = WINDOWS[(seed + number) % len(WINDOWS)]
        count = chance.randint(1, 3) if "PUT" in where else 1
        assert end_of(launch(place.told((where, count)))) == -signal.SIGKILL
        if where != "after commit":
            assert uncommitted_parts(place.archive) >= 1
        if chance.random() < 0.3:
            keys += change_source(place.source, number)
    finish_and_check(place, keys, list(BAD))


@pytest.mark.parametrize("seed", range(15))
def test_two_drivers_overlap_and_die(place: Place, seed: int) -> None:
    chance = random.Random(100 + seed)
    keys = fill(place.source, IMAGES, BAD)
    gate = 1 + seed % 2  # at 2 both plan the same keys, in two runs; at 1 the second finds the first's run
    drivers = [launch(place.told(None, digest, gate)) for digest in (False, True)]
    kill_after(drivers, [chance.uniform(0.1, 0.8) for _ in drivers])
    if chance.random() < 0.5:
        keys += change_source(place.source, 0)
        survivor = launch(place.told(None))
        kill_after([survivor], [chance.uniform(0.02, 0.6)])
    finish_and_check(place, keys, list(BAD))


@pytest.mark.parametrize("seed", range(12))
def test_a_driver_is_killed_at_any_time(place: Place, seed: int) -> None:
    chance = random.Random(200 + seed)
    keys = fill(place.source, IMAGES, BAD)
    for number in range(2):
        kill_after([launch(place.told(None))], [chance.uniform(0.0, 0.5)])
        if chance.random() < 0.5:
            keys += change_source(place.source, number)
    finish_and_check(place, keys, list(BAD))


@pytest.mark.parametrize("seed", range(5))
def test_drivers_of_buckets_are_killed(s3: S3Server, place: Place, seed: int) -> None:
    chance = random.Random(300 + seed)
    place = replace(place, source=s3.location("photos"), archive=s3.location("archive"))
    keys = fill(place.source, IMAGES, BAD)
    drivers = [launch(place.told(("after PUT", 2) if seed % 2 else None)), launch(place.told(None))]
    kill_after(drivers, [chance.uniform(0.2, 2.0) for _ in drivers])
    keys += change_source(place.source, 0)
    finish_and_check(place, keys, list(BAD))


@pytest.mark.parametrize("seed", range(4))
def test_ray_workers_and_their_driver_are_killed(place: Place, seed: int, ray_cluster: str) -> None:
    chance = random.Random(400 + seed)
    place = replace(place, workers=2)
    poison = {**BAD, "b/kills.png": png(KILLS)} if seed % 2 else BAD
    keys = fill(place.source, 4 * IMAGES, poison)
    driver = launch(place.told(None), {"RAY_ADDRESS": ray_cluster})
    killed = 0
    deadline = time.monotonic() + 60
    while killed < 3 and driver.poll() is None and time.monotonic() < deadline:
        workers = sorted(place.pids.iterdir())
        if workers:
            chosen = chance.choice(workers)
            chosen.unlink()
            with suppress(ProcessLookupError):
                os.kill(int(chosen.name), signal.SIGKILL)
                killed += 1
        time.sleep(chance.uniform(0.02, 0.3))
    kill_after([driver], [0.0])
    assert killed >= 1
    finish_and_check(place, keys, list(poison))
