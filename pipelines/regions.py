"""A key and its pixels -> labels: which parts of a picture are coded, and which are drawn. See `Picture.labels_hw`."""

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from posixpath import splitext
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from manifests.plan import BOXES_FIELD
from manifests.storage import Location, connect
from pipelines.codec import Pixels
from pipelines.images import DAMAGE
from pipelines.patience import Readable, read_beside

Labels = NDArray[np.uint8]  # (H, W)
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are not in it

# What a plan's head says under `keep`; any other text is the setting of a finder.
SOURCES = ("none", "boxes", "mask")
CODED, DRAWN = 0, 255  # labels: code this pixel; draw it as what the codec takes it for
MASK_SUFFIX = ".labels.png"


class BadRegions(ValueError):
    """What is to be kept is told and cannot be followed; one line says why."""


class Finder(Protocol):
    """Finds what is to be kept of pictures, on the worker; a loaded one is used by one thread at a time."""

    @property
    def batch(self) -> int:
        """How many pictures a call handles best."""

    def labels(self, pictures: Sequence[Pixels]) -> list[Labels | None]:
        """One for each picture; None where it finds nothing: such a picture is coded whole."""


# A finder's setting, device ("cpu", "cuda:0") -> a loaded finder; OSError where it cannot be loaded.
LoadFinder = Callable[[str, str], Finder]


def no_finder(keep: str, device: str) -> Finder:
    """A `LoadFinder` for those who have none."""
    raise OSError(f"keep {keep!r}, expected one of {', '.join(SOURCES)}: there is no finder here")


class Regions(Protocol):
    """Reads what is told of an image, on the worker. Used by several threads at a time."""

    def labels(self, key: str, boxes: str | None, pixels_hwc: Pixels) -> Labels | None:
        """None: code all; `boxes` is what the plan says; `BadRegions` where it cannot be followed."""


class Whole:
    """All of every picture."""

    def labels(self, key: str, boxes: str | None, pixels_hwc: Pixels) -> Labels | None:
        return None


class PlannedBoxes:
    """The boxes of the plan; all of a picture that it has none for."""

    def labels(self, key: str, boxes: str | None, pixels_hwc: Pixels) -> Labels | None:
        if boxes is None:
            return None
        height, width = pixels_hwc.shape[:2]
        kept: list[Box] = [tuple(box) for box in json.loads(boxes)]
        for box in kept:
            if box[2] > width or box[3] > height:
                raise BadRegions(f"box {list(box)} in a picture of {width} x {height} pixels")
        return labels_of(kept, height, width)


class Masks:
    """The labels beside an image: `photo.labels.png` for `photo.jpg`; all of a picture that has none."""

    def __init__(self, store: Readable) -> None:
        self._store = store

    def labels(self, key: str, boxes: str | None, pixels_hwc: Pixels) -> Labels | None:
        path = splitext(key)[0] + MASK_SUFFIX
        content = read_beside(self._store, path, BadRegions)
        if content is None:
            return None
        try:
            return read_labels(content, *pixels_hwc.shape[:2])
        except BadRegions as error:
            raise BadRegions(f"{path}: {error}") from error


def open_regions(keep: str, source: Readable) -> Regions:
    """For one of SOURCES."""
    match keep:
        case "none":
            return Whole()
        case "boxes":
            return PlannedBoxes()
        case "mask":
            return Masks(source)
        case _:
            raise ValueError(f"keep {keep!r}, expected one of {', '.join(SOURCES)}")


def left_out(keep: str) -> tuple[str, ...]:
    """Globs of keys that are no images of their own where `keep` is the setting."""
    return (f"*{MASK_SUFFIX}",) if keep == "mask" else ()


def labels_of(kept: Iterable[Box], height: int, width: int) -> Labels:
    """What is in any of the boxes is coded, the rest drawn."""
    labels_hw = np.full((height, width), DRAWN, dtype=np.uint8)
    for left, top, right, bottom in kept:
        labels_hw[top:bottom, left:right] = CODED
    return labels_hw


def read_labels(content: bytes, height: int, width: int) -> Labels:
    """The values of a PNG of 8-bit grey, or of a palette, of that size; `BadRegions` for any other file."""
    try:
        image = PngImageFile(io.BytesIO(content))
        # Of 2 and 4 bits of grey Pillow makes 8: the values would no longer be what the file says.
        if image.mode != "P" and (image.mode != "L" or content[24] != 8):
            raise BadRegions(f"a PNG of mode {image.mode}, expected 8 bits of grey, or a palette")
        if image.size != (width, height):
            raise BadRegions(
                f"labels of {image.width} x {image.height} pixels, expected the picture's {width} x {height}"
            )
        return np.array(image, dtype=np.uint8)
    except BadRegions:
        raise
    except DAMAGE as error:
        raise BadRegions(f"not a whole PNG: {' '.join(str(error).split())[:80]}") from error


def read_boxes(location: Location) -> Mapping[str, str]:
    """Key -> boxes, as JSON in whole pixels, of an object {key: [[left, top, right, bottom], ...]}.

    ValueError where it is none, or has a key twice. Example: {"a.jpg": [[1.5, 2, 3, 4]]} -> {"a.jpg": "[[1,2,3,4]]"}
    """
    folder, _, name = location.url.rpartition("/")
    content = connect(Location(folder or "/", location.options)).read(name)
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_each_once)
        if not isinstance(found, dict):
            raise ValueError(f"a JSON {type(found).__name__}")
        return {key: json.dumps(_boxes(key, boxes), separators=(",", ":")) for key, boxes in found.items()}
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        expected = "{key: [[left, top, right, bottom], ...]}"
        raise ValueError(f"{location}: {error}; expected {expected}, in pixels") from error


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"{twice!r} is there twice")
    return found


def _boxes(key: str, boxes: object) -> list[Box]:
    if not isinstance(boxes, list):
        raise ValueError(f"{key!r} has no list of boxes")
    return [_box(key, box) for box in boxes]


def _box(key: str, box: object) -> Box:
    """All pixels that it touches."""
    if isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box):
        left, top, right, bottom = box
        # Written so that NaN and the infinities, which Python's JSON reads, are none.
        if 0 <= left < right < math.inf and 0 <= top < bottom < math.inf:
            return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    raise ValueError(f"{key!r} has the box {box}")


def with_boxes(rows: pa.Table, boxes: Location) -> pa.Table:
    """The rows of a plan with the boxes that the file has for them."""
    found = read_boxes(boxes)
    places = pc.index_in(rows["key"], value_set=pa.array(found.keys(), pa.string()))
    return rows.append_column(BOXES_FIELD, pa.array(found.values(), pa.string()).take(places))
