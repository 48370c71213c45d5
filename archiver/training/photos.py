"""A folder or bucket of pictures -> an endless, seeded stream of augmented photographs.

Everything that a training step sees is a function of the recipe's seed and the step's number: a run that stops
and goes on sees the pictures that it would have seen.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from manifests.storage import Location, Store, connect
from pipelines.codec import Pixels
from pipelines.images import UnreadableImage, read_image

SUFFIXES = (".avif", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Photo:
    """One picture of a training source, as listed."""

    path: str
    licence: str | None  # from a JSON-lines list beside the folder; None where nothing is known
    credit: str | None
    caption: str | None


def list_photos(source: Location) -> list[Photo]:
    """All pictures below the source, in ascending order of their paths.

    A JSON-lines list named after the folder (`train.jsonl` beside `train/`) or `list.jsonl` in it tells of each
    `file` its `licence`, `credit` and `caption`.
    """
    paths = sorted(e.path for e in connect(source).list() if e.path.lower().endswith(SUFFIXES))
    if not paths:
        raise ValueError(f"no pictures at {source}: expected files that end in {', '.join(SUFFIXES)}")
    told = _told(source)
    return [
        Photo(path, *(told.get(path, {}).get(name) or None for name in ("licence", "credit", "caption")))
        for path in paths
    ]


def _told(source: Location) -> dict[str, dict[str, str]]:
    parent, _, name = source.url.rpartition("/")
    for url, path in ((parent, f"{name}.jsonl"), (source.url, "list.jsonl")):
        store = connect(Location(url, source.options))
        if store.exists(path):
            lines = store.read(path).decode().splitlines()
            return {entry["file"]: entry for entry in map(json.loads, lines)}
    return {}


def licences(photos: Sequence[Photo]) -> dict[str, int]:
    """Licence -> how many pictures: what a model card has to name."""
    found: dict[str, int] = {}
    for photo in photos:
        name = photo.licence or "unknown"
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def read_photo(store: Store, photo: Photo) -> Pixels | None:
    """The picture's pixels, or None where it cannot be read."""
    try:
        return read_image(store.read(photo.path)).pixels_hwc
    except UnreadableImage:
        return None


def shrunk(pixels_hwc: Pixels, rng: np.random.Generator, shortest: int, least: float = 0.5) -> Pixels:
    """The picture at a random size: `least` to 1 of its own, but no side under `shortest`; sharper, and without
    the traces of an earlier codec. Half of all pictures are mirrored."""
    height, width = pixels_hwc.shape[:2]
    floor = min(1.0, max(least, shortest / min(height, width)))
    factor = rng.uniform(floor, 1.0)
    size = (max(shortest, round(width * factor)), max(shortest, round(height * factor)))
    image = Image.fromarray(pixels_hwc).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    small: Pixels = np.asarray(image)
    return small[:, ::-1] if rng.random() < 0.5 else small
