"""`--keep` of `archiver encode`: what is coded of pictures, the rest is drawn."""

from typing import Annotated

import typer

from archiver import presets
from archiver.presets import Preset
from archiver.regions import DETECTOR, SCORE, SEGMENTER, Wanted, check_finder

Keep = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="What is coded of pictures, by presets that can; the rest is drawn as the kind of surface it is. "
        "boxes:FILE.json, mask (photo.labels.png beside photo.jpg), detector:FOLDER|ID or segmenter:FOLDER|ID "
        "of transformers.",
        show_default="all",
    ),
]
KeepClasses = Annotated[
    str | None,
    typer.Option(metavar="NAME,NAME", help="Of what a detector or segmenter finds, by its names for it."),
]
KeepScore = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=0.99, metavar="P", help="Of a detector's boxes, at least.", show_default=str(SCORE)
    ),
]


def kept_by(
    preset: Preset, keep: str | None, classes: str | None, score: float | None
) -> tuple[str, str | None]:
    """What the plan's head will say, and the file of boxes.

    Models are looked for: a run planned for one that is not there could not go on.
    """
    kind, _, name = (keep or "none").partition(":")
    if classes is not None and kind not in (DETECTOR, SEGMENTER):
        raise typer.BadParameter("expected with a detector or segmenter", param_hint="--keep-classes")
    if score is not None and kind != DETECTOR:
        raise typer.BadParameter("expected with a detector", param_hint="--keep-score")
    if keep is None:
        return "none", None
    if not preset.selective:
        able = ", ".join(one.name for one in presets.PRESETS if one.selective)
        raise ValueError(
            f"preset {preset.name} codes whole pictures only; presets that can leave out parts: {able}"
        )
    if keep == "mask":
        return "mask", None
    if not name or kind not in ("boxes", DETECTOR, SEGMENTER):
        raise typer.BadParameter(
            f"{keep!r}, expected boxes:FILE.json, mask, detector:FOLDER|ID or segmenter:FOLDER|ID",
            param_hint="--keep",
        )
    if kind == "boxes":
        return "boxes", name
    chosen = tuple(one.strip() for one in (classes or "").split(",") if one.strip())
    if kind == SEGMENTER and not chosen:
        raise typer.BadParameter("expected with a segmenter", param_hint="--keep-classes")
    setting = Wanted(kind, name, chosen, score or SCORE).setting
    check_finder(setting)
    return setting, None
