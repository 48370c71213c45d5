"""A folder or bucket of pictures -> an endless, seeded stream of augmented photographs.

Everything that a training step sees is a function of the recipe's seed and the step's number: a run that stops
and goes on sees the pictures that it would have seen.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from manifests.storage import LOCAL, S3, Location, Store, connect
from pipelines.codec import Pixels
from pipelines.images import UnreadableImage, read_image

SUFFIXES = (".avif", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
TOLD = ("licence", "credit", "caption")
PAUSES = (1.0, 4.0, 0.0)  # seconds, after each attempt at a picture that failed


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
    `file` its `licence`, `credit` and `caption`. ValueError where it does not, or where there are no two pictures.
    """
    paths = sorted(e.path for e in connect(source).list() if e.path.lower().endswith(SUFFIXES))
    if not paths:
        raise ValueError(f"no pictures at {source}: expected files that end in {', '.join(SUFFIXES)}")
    if len(paths) == 1:
        raise ValueError(f"one picture at {source}: expected two or more, for the first is never trained on")
    told = _told(source)
    return [Photo(path, *(told.get(path, {}).get(name) or None for name in TOLD)) for path in paths]


def _told(source: Location) -> dict[str, dict[str, str]]:
    places = [(source.url, "list.jsonl")]
    if source.scheme in (LOCAL, S3):  # elsewhere, as in a zip file, nothing need lie beside
        parent, _, name = source.url.rpartition("/")
        places.insert(0, (parent or "/", f"{name}.jsonl"))
    for url, path in places:
        place = Location(url, source.options)
        store = connect(place)
        if store.exists(path):
            return _entries(store.read(path), f"{place}/{path}")
    return {}


def _entries(content: bytes, name: str) -> dict[str, dict[str, str]]:
    """A JSON-lines list -> what it tells of each file; ValueError that names the line."""
    found = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig").strip()
            entry = json.loads(text) if text else None
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from error
        if not text:
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise ValueError(f"{name}, line {number}: no object with a `file`, but {text[:60]}")
        for key in TOLD:
            if not isinstance(entry.get(key) or "", str):
                raise ValueError(f"{name}, line {number}: {key} {entry[key]!r}, expected text")
        found[entry["file"]] = entry
    return found


def licences(photos: Sequence[Photo]) -> dict[str, int]:
    """Licence -> how many pictures: what a model card has to name."""
    found: dict[str, int] = {}
    for photo in photos:
        name = photo.licence or "unknown"
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def read_photo(store: Store, photo: Photo) -> Pixels | None:
    """The picture's pixels, or None where it cannot be read; where the store fails, it is asked some more times."""
    for pause in PAUSES:
        try:
            return read_image(store.read(photo.path)).pixels_hwc
        except (UnreadableImage, FileNotFoundError):
            break
        except OSError:
            time.sleep(pause)
    return None


def shrunk(pixels_hwc: Pixels, rng: np.random.Generator, shortest: int, least: float = 0.5) -> Pixels:
    """The picture at a random size: `least` to 1 of its own, but no side under `shortest` that was not before;
    sharper, and without the traces of an earlier codec. Half of all pictures are mirrored."""
    height, width = pixels_hwc.shape[:2]
    floor = min(1.0, max(least, shortest / min(height, width)))
    factor = rng.uniform(floor, 1.0)
    size = (round(width * factor), round(height * factor))
    image = Image.fromarray(pixels_hwc).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    small: Pixels = np.asarray(image)
    return small[:, ::-1] if rng.random() < 0.5 else small
