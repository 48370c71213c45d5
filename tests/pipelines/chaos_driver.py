"""`python -m tests.pipelines.chaos_driver JOB`: an encode that dies by SIGKILL where it is told to.

JOB is a JSON object: source and archive ([URL, options]), workers, pids (folder), dies ([where, count] or null),
digest, gate (how many drivers have to have looked for unfinished runs before any of them plans one).
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from manifests import commit
from manifests.records import CodecSpec
from manifests.storage import locate
from pipelines import encode as encode_module
from pipelines import listing, worker
from pipelines.encode import EncodeJob, encode
from tests.toy_codec import load_toy

P = ParamSpec("P")
T = TypeVar("T")


def job_of(told: dict[str, object]) -> EncodeJob:
    """Many small shards, and few of them in a commit."""
    source, archive = told["source"], told["archive"]
    assert isinstance(source, list)
    assert isinstance(archive, list)
    spec = CodecSpec("toy", 1, {"seconds": 0.004, "pids": str(told["pids"])})
    digest, workers = bool(told["digest"]), int(str(told["workers"]))
    return EncodeJob(locate(*source), locate(*archive), spec, workers=workers, shard_records=6, digest=digest)


def dying(function: Callable[P, T], count: int, before: bool) -> Callable[P, T]:
    """The function, until its `count`-th call, which the process does not survive."""
    calls = 0

    def counted(*arguments: P.args, **named: P.kwargs) -> T:
        nonlocal calls
        calls += 1
        if calls == count and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def arrange_death(where: str, count: int) -> None:
    match where:
        case "after PUT":
            worker.write_part = dying(worker.write_part, count, before=False)
        case "before commit":
            commit._write_commit = dying(commit._write_commit, count, before=True)
        case "after commit":
            commit._write_commit = dying(commit._write_commit, count, before=False)
        case _:
            raise ValueError(f"death {where!r}")


def waiting(function: Callable[P, T], drivers: int, gate: Path) -> Callable[P, T]:
    """The function, once so many drivers have come to its call."""

    def waited(*arguments: P.args, **named: P.kwargs) -> T:
        Path(gate, f"gate-{os.getpid()}").touch()
        deadline = time.monotonic() + 30
        while len(list(gate.glob("gate-*"))) < drivers:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return function(*arguments, **named)

    return waited


def main() -> None:
    told = json.loads(sys.argv[1])
    encode_module.COMMIT_PARTS = 3
    if told["dies"] is not None:
        arrange_death(*told["dies"])
    gated = waiting(listing.plan_run, told["gate"], Path(told["pids"]).parent)
    encode_module.plan_run = gated  # type: ignore[attr-defined]
    print("ready", flush=True)
    for _ in encode(job_of(told), load_toy):
        pass


if __name__ == "__main__":
    main()
