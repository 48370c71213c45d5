"""The process that cuts crops."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.tiny_training import write_photographs

PROGRAM = """
import multiprocessing, os, signal, sys, time
from archiver.training.layered import LayeredCrops
from archiver.training.photos import list_photos
from archiver.training.stream import Feed, batches
from manifests.storage import locate

source = locate(sys.argv[1])
crops = LayeredCrops(64, scales=((2, 1.0),))
stream = batches(Feed(source, tuple(list_photos(source)), crops, 64, 4, block_photos=2), 0)
next(stream)
time.sleep(4)  # the maker is ahead, and waits to write more than the pipe takes
print(multiprocessing.active_children()[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    told = Path(f"/proc/{process}/stat")  # ended, too, is one that nobody has asked how it ended
    return told.exists() and told.read_text().rpartition(")")[2].split()[0] == "Z"


def test_it_ends_when_a_training_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(write_photographs(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        maker = int(process.stdout.readline())
    try:
        last = time.monotonic() + 60
        while not has_ended(maker):
            assert time.monotonic() < last
            time.sleep(0.2)
    finally:
        if not has_ended(maker):
            os.kill(maker, signal.SIGKILL)
