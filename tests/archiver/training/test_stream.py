"""Crops of photographs, and the process that cuts them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.training import stream
from archiver.training.photos import Photo, list_photos, read_photo
from archiver.training.stream import Arrays, Feed, PlainCrops, batches, block_of
from manifests.storage import Store, locate
from pipelines.codec import Pixels
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


class Numbered:
    """Crops that tell which photograph they are of, by its mean, and which of its crops they are."""

    def __call__(
        self, pixels_hwc: Pixels, caption: str | None, count: int, block_seed: int, seed: int
    ) -> Arrays:
        return {"photo": np.full(count, pixels_hwc.mean()), "crop": np.arange(count)}


@pytest.mark.parametrize("together", [1, 2])
def test_crops_of_a_photograph_stay_together_where_they_must(together: int, tmp_path: Path) -> None:
    source = locate(str(write_photographs(tmp_path)))
    feed = Feed(source, tuple(list_photos(source)), Numbered(), 64, 2, block_photos=6, together=together)
    block = block_of(feed, 0)
    photos, crops = (block[name].reshape(-1, 2) for name in ("photo", "crop"))
    assert (together == 2) == bool(np.all((photos[:, 0] == photos[:, 1]) & (crops[:, 0] + 1 == crops[:, 1])))
    assert len(np.unique(photos[:6, 0])) > 1  # the pairs are shuffled
    assert sorted(crops.ravel().tolist()) == sorted([*range(8)] * 6)


@pytest.fixture
def small(tmp_path: Path) -> Feed:
    """Of a thumbnail, and of a file that is no picture."""
    Image.new("RGB", (100, 63)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    source = locate(str(tmp_path))
    return Feed(source, tuple(list_photos(source)), PlainCrops(64), 64, 2)


def test_without_a_picture_that_is_large_enough_there_are_no_crops(small: Feed) -> None:
    told = f"{small.source}: no picture that can be read has 64 pixels a side or more, of 2 from a.png on"
    with pytest.raises(ValueError, match=told):
        block_of(small, 0)
    with closing(batches(small, 0)) as made, pytest.raises(ValueError, match=told):  # of another process
        next(made)


def test_pictures_that_are_no_use_are_read_once_a_block(
    small: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def reading(store: Store, photo: Photo) -> Pixels | None:
        read.append(photo.path)
        return read_photo(store, photo)

    monkeypatch.setattr(stream, "read_photo", reading)
    Image.new("RGB", (80, 64)).save(tmp_path / "c.png")
    block = block_of(replace(small, photos=tuple(list_photos(small.source))), 0)
    assert len(block["target"]) == 128
    assert sorted(read) == ["a.png", "b.png", *["c.png"] * 16]


def test_a_process_that_was_killed_is_told_of() -> None:
    context = multiprocessing.get_context("spawn")
    maker = context.Process(target=os._exit, args=(3,))
    maker.start()
    maker.join()
    with pytest.raises(OSError, match="the process that cuts crops ended with exit code 3"):
        stream._next(context.Queue(), maker)


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
