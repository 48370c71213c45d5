"""A source -> copies of the pictures that an evaluation is of."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from archiver.evaluation.frechet import PATCH, patch_count
from archiver.evaluation.job import EvaluationJob
from archiver.evaluation.metrics import SHORTEST_SIDE
from manifests.storage import Store, connect, locate
from pipelines.images import UnreadableImage, read_image
from pipelines.listing import Selection, list_source

SIDECARS = (".txt", ".json")
PICTURES = "pictures.json"  # in the work folder: their keys


@dataclass(frozen=True)
class LeftOut:
    """Why a picture cannot take part."""

    text: str
    fails: bool  # it cannot be read, rather than judged


def gather(job: EvaluationJob) -> tuple[list[str], Mapping[str, LeftOut]]:
    """Copies the pictures that take part, with their sidecars, to the work folder; and says why others do not.

    Where one cannot, of those of a `limit`, the next in order takes its place.
    """
    source, copies = connect(job.source), connect(locate(str(job.work / "source")))
    images = list_source(job.source, Selection()).rows["key"].to_pylist()
    count = min(len(images), job.limit or len(images))
    edges = [place * len(images) // count for place in range(count)] + [len(images)] if count else [0]
    keys: list[str] = []
    left_out: dict[str, LeftOut] = {}
    patches = 0
    for first, end in pairwise(edges):
        for key in images[first:end]:
            found = _copied(source, copies, key)
            if not isinstance(found, LeftOut):
                keys.append(key)
                patches += patch_count(*found)
                break
            left_out[key] = found
    if not keys:
        reasons = {key: why.text for key, why in left_out.items()}
        raise ValueError(f"{job.source}: none of {len(images):,} images can be judged; {first_of(reasons)}")
    _check_same_pictures(job, keys)
    if job.inception is not None and patches < 2:
        raise ValueError(
            f"{job.source}: {patches} patches of {PATCH} x {PATCH} pixels, FID and KID want many"
        )
    return keys, left_out


def first_of(reasons: Mapping[str, str]) -> str:
    """Example: "a.png: damaged image, and 3 more"."""
    return next((f"{key}: {why}" for key, why in reasons.items()), "") + (
        f", and {len(reasons) - 1:,} more" if len(reasons) > 1 else ""
    )


def _copied(source: Store, copies: Store, key: str) -> tuple[int, int] | LeftOut:
    """Height and width of the picture."""
    content = source.read(key)
    try:
        height, width = read_image(content).pixels_hwc.shape[:2]
    except UnreadableImage as error:
        return LeftOut(str(error), True)
    if min(height, width) < SHORTEST_SIDE:
        return LeftOut(f"{width} x {height} pixels, MS-SSIM wants {SHORTEST_SIDE} a side", False)
    _put(copies, key, content)
    for suffix in SIDECARS:
        sidecar = os.path.splitext(key)[0] + suffix
        if source.exists(sidecar):
            _put(copies, sidecar, source.read(sidecar))
    return height, width


def _put(copies: Store, key: str, content: bytes) -> None:
    """One that is there stays as old as it is: an archive that has it would take it for another."""
    if not copies.exists(key):
        copies.write(key, content)
    elif copies.read(key) != content:
        raise ValueError(f"{key} is not what it was when this evaluation began, expected a new folder for it")


def _check_same_pictures(job: EvaluationJob, keys: list[str]) -> None:
    """ValueError where an evaluation that was broken off began with other pictures."""
    store, content = connect(locate(str(job.work))), json.dumps(keys).encode()
    if not store.exists(PICTURES):
        store.write(PICTURES, content)
    elif store.read(PICTURES) != content:
        raise ValueError(f"{job.source} has other pictures than {job.work} began with, expected a new folder")
