"""`python -m tests.pipelines.chaos_driver JOB`: an encode that dies by SIGKILL where it is told to.

JOB is a JSON object: source and archive ([URL, options]), workers, pids (folder), dies ([where, count] or null).
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from manifests import commit
from manifests.records import CodecSpec
from manifests.storage import locate
from pipelines import encode as encode_module
from pipelines import worker
from pipelines.encode import EncodeJob, encode
from tests.toy_codec import load_toy

P, T = ParamSpec("P"), TypeVar("T")


def job_of(told: dict[str, object]) -> EncodeJob:
    """Many small shards, and few of them in a commit."""
    source, archive = told["source"], told["archive"]
    assert isinstance(source, list)
    assert isinstance(archive, list)
    spec = CodecSpec("toy", 1, {"seconds": 0.004, "pids": str(told["pids"])})
    return EncodeJob(
        locate(*source), locate(*archive), spec, workers=int(str(told["workers"])), shard_records=6
    )


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


def main() -> None:
    told = json.loads(sys.argv[1])
    encode_module.COMMIT_PARTS = 3
    if told["dies"] is not None:
        arrange_death(*told["dies"])
    print("ready", flush=True)
    for _ in encode(job_of(told), load_toy):
        pass


if __name__ == "__main__":
    main()
