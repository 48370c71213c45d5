"""Photographs -> batches of crops, made ahead by another process: batch n is a function of the seed and n."""

import multiprocessing
import queue
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archiver.training.photos import Photo, read_photo, shrunk
from manifests.storage import Location, connect
from pipelines.codec import Pixels

Arrays = Mapping[str, NDArray[np.generic]]  # name -> values, the first axis counts crops
_Made: TypeAlias = "multiprocessing.queues.Queue[Arrays | ValueError]"
AHEAD = 2  # blocks that wait to be used
GIVE_UP_SECONDS = 600


class Crops(Protocol):
    """What a task makes of a photograph. Picklable: it runs in a process of its own."""

    def __call__(
        self, pixels_hwc: Pixels, caption: str | None, count: int, block_seed: int, seed: int
    ) -> Arrays:
        """`count` crops; what all photographs of a block share follows from `block_seed`."""


@dataclass(frozen=True)
class PlainCrops:
    """Plain crops of a photograph."""

    crop: int

    def __call__(
        self, pixels_hwc: Pixels, caption: str | None, count: int, block_seed: int, seed: int
    ) -> Arrays:
        rng = np.random.default_rng(seed)
        corners = windows(pixels_hwc.shape[0], pixels_hwc.shape[1], self.crop, 1, count, rng)
        return {
            "target": np.stack([pixels_hwc[y : y + self.crop, x : x + self.crop] for y, x in corners]),
        }


@dataclass(frozen=True)
class Feed:
    """Which photographs, and how they are cut: a block is `block_photos` of `crops_a_photo` each, shuffled."""

    source: Location
    photos: tuple[Photo, ...]
    crops: Crops
    crop: int  # pixels a side
    batch: int  # crops
    block_photos: int = 16
    crops_a_photo: int = 8
    together: int = 1  # crops of a photograph that stay together: a batch of as many is of one photograph
    seed: int = 1

    @property
    def batches_a_block(self) -> int:
        return self.block_photos * self.crops_a_photo // self.batch


def block_of(feed: Feed, number: int) -> Arrays:
    """All crops of a block, shuffled, but for those that stay together; ValueError where no picture is fit."""
    rng = np.random.default_rng((feed.seed, number))
    store = connect(feed.source)
    found: list[Arrays] = []
    unfit: set[int] = set()
    block_seed = int(rng.integers(2**31))
    while len(found) < feed.block_photos:
        if len(unfit) == len(feed.photos):
            raise ValueError(
                f"{feed.source}: no picture that can be read has {feed.crop} pixels a side or more,"
                f" of {len(feed.photos)} from {feed.photos[0].path} on"
            )
        place = int(rng.integers(len(feed.photos)))
        photo = feed.photos[place]
        pixels_hwc = None if place in unfit else read_photo(store, photo)
        if pixels_hwc is None or min(pixels_hwc.shape[:2]) < feed.crop:
            unfit.add(place)
            continue
        small = shrunk(pixels_hwc, rng, max(feed.crop, 256))
        found.append(
            feed.crops(small, photo.caption, feed.crops_a_photo, block_seed, int(rng.integers(2**31)))
        )
    groups = rng.permutation(feed.block_photos * feed.crops_a_photo // feed.together)
    order = (groups[:, None] * feed.together + np.arange(feed.together)).ravel()
    return {name: np.concatenate([arrays[name] for arrays in found])[order] for name in found[0]}


def batches(feed: Feed, first: int) -> Generator[Arrays]:
    """Batches number `first`, `first` + 1, … without end, cut from blocks that a second process makes ahead."""
    context = multiprocessing.get_context("spawn")
    ready: _Made = context.Queue(AHEAD)
    number = first // feed.batches_a_block
    maker = context.Process(target=_make, args=(feed, number, ready), daemon=True)
    maker.start()
    try:
        skip = first % feed.batches_a_block
        while True:
            block = _next(ready, maker)
            for place in range(skip, feed.batches_a_block):
                rows = slice(place * feed.batch, (place + 1) * feed.batch)
                yield {name: values[rows] for name, values in block.items()}
            skip = 0
    finally:
        maker.kill()
        maker.join()


def _make(feed: Feed, number: int, ready: "_Made") -> None:
    parent = multiprocessing.parent_process()
    while True:
        try:
            block: Arrays | ValueError = block_of(feed, number)
        except (ValueError, OSError) as error:  # for the parent to raise, which then ends this process
            block = ValueError(str(error))
        number += 1
        while True:
            if parent is not None and not parent.is_alive():
                ready.cancel_join_thread()  # nobody will ever read what it still has to write
                return
            try:
                ready.put(block, timeout=5)
                break
            except queue.Full:
                continue


def _next(ready: "_Made", maker: multiprocessing.process.BaseProcess) -> Arrays:
    for _ in range(GIVE_UP_SECONDS):
        try:
            block = ready.get(timeout=1)
        except queue.Empty:
            if not maker.is_alive():
                raise ChildProcessError(
                    f"the process that cuts crops ended with exit code {maker.exitcode}"
                ) from None
            continue
        if isinstance(block, ValueError):
            raise block
        return block
    raise TimeoutError(f"no block of crops in {GIVE_UP_SECONDS} s")


def windows(
    height: int, width: int, size: int, step: int, count: int, rng: np.random.Generator
) -> Sequence[tuple[int, int]]:
    """Top left corners, on a grid of `step` pixels, of `count` windows of `size` pixels."""
    tops = rng.integers(0, (height - size) // step + 1, count) * step
    lefts = rng.integers(0, (width - size) // step + 1, count) * step
    return list(zip(tops.tolist(), lefts.tolist(), strict=True))
