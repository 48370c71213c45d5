"""What a plan says under `keep` -> the finder that does it. Encode side only: decoding needs none.

A setting is `detector SCORE CLASSES NAME` or `segmenter CLASSES NAME`: NAME is a folder or a hub id, SCORE the least
that counts, CLASSES are separated by commas and quoted as in URLs, `*` for all that a detector knows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from pipelines.regions import Finder

DETECTOR, SEGMENTER = "detector", "segmenter"
SCORE = 0.5  # of a detector's box, unless the user says otherwise
ALL = "*"


@dataclass(frozen=True)
class Wanted:
    """A model, and what of that which it finds is kept."""

    kind: str  # DETECTOR, SEGMENTER
    name: str  # a folder or a hub id
    classes: tuple[str, ...]  # by the model's names for them; none: all
    score: float = SCORE  # a detector's

    @property
    def setting(self) -> str:
        """Folders by their absolute paths. Example: "detector 0.5 person,traffic%20light me/detector"."""
        name = Path(self.name).resolve() if Path(self.name).is_dir() else self.name
        classes = ",".join(quote(one, safe="") for one in self.classes) or ALL
        score = [f"{self.score:g}"] if self.kind == DETECTOR else []
        return " ".join([self.kind, *score, classes, str(name)])


def is_finder(keep: str) -> bool:
    """Whether a setting names a model; not whether it is complete."""
    return keep.partition(" ")[0] in (DETECTOR, SEGMENTER)


def load_finder(keep: str, device: str) -> "Finder":
    """The finder of a setting, on `device` ("cpu", "cuda:0"). OSError where it cannot be loaded."""
    wanted = wanted_of(keep)
    if wanted.kind == DETECTOR:
        from archiver.regions.detector import load_detector

        return load_detector(wanted, device)
    from archiver.regions.segmenter import load_segmenter

    return load_segmenter(wanted, device)


def check_finder(keep: str) -> None:
    """OSError or ValueError where workers could not load it; on the driver, before anything is planned."""
    from archiver.regions.models import check_model

    check_model(wanted_of(keep))


def wanted_of(keep: str) -> Wanted:
    """Inverse of `Wanted.setting`."""
    match keep.split(" ", 1):
        case ["detector", rest]:
            score, classes, name = (*rest.split(" ", 2), "", "")[:3]
            if name and _is_score(score):
                return Wanted(DETECTOR, name, _classes(classes), float(score))
        case ["segmenter", rest]:
            classes, _, name = rest.partition(" ")
            if name and classes != ALL:
                return Wanted(SEGMENTER, name, _classes(classes))
    raise OSError(
        f"keep {keep!r}, this program knows: {DETECTOR} SCORE CLASSES NAME, {SEGMENTER} CLASSES NAME"
    )


def _is_score(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _classes(text: str) -> tuple[str, ...]:
    return () if text == ALL else tuple(unquote(one) for one in text.split(","))
