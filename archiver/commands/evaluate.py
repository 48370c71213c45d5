"""`archiver evaluate`: what presets cost and look like, beside conventional codecs at equal bytes."""

import errno
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.commands.options import FOUND, AsJson, location
from archiver.console import Column, count_text, print_json, print_table, say
from archiver.presets import DEFAULT, find_preset
from archiver.progress import Meter
from archiver.weights import complete

if TYPE_CHECKING:
    from archiver.evaluation.job import EvaluationJob
    from archiver.evaluation.results import Evaluation


class Baseline(StrEnum):
    AVIF = "avif"
    JXL = "jxl"
    WEBP = "webp"
    JPEG = "jpeg"


class Captions(StrEnum):
    SIDECAR = "sidecar"
    TAGS = "tags"


def evaluate(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Pictures: a folder, s3://BUCKET/PREFIX, or any fsspec URL."),
    ],
    codec: Annotated[
        list[str] | None,
        typer.Option(metavar="PRESET", help="See `archiver codecs`. Repeatable.", show_default=DEFAULT),
    ] = None,
    baseline: Annotated[
        list[Baseline] | None,
        typer.Option(
            help="Conventional codec at the presets' bytes. Repeatable.", show_default="avif, webp, jpeg"
        ),
    ] = None,
    captions: Annotated[
        Captions, typer.Option(help="Where presets that decode from captions get them; their bytes count.")
    ] = Captions.SIDECAR,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write plots, tables and pictures as one page.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many pictures at most, evenly spaced.")
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of FID's Inception: adds FID and KID over patches."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep archives and reconstructions there; broken off, the same command goes on from them.",
        ),
    ] = None,
    source_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="How to reach the source. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure presets on the pictures below SOURCE: real bytes, quality, speed, against AVIF and others.

    Pictures of many megapixels take minutes each, for every codec and baseline: see --limit.
    """
    from archiver.evaluation.job import EvaluationJob

    if html is not None:
        _check_writable(html)
    with tempfile.TemporaryDirectory(prefix="archiver-evaluate-") as folder:
        job = EvaluationJob(
            source=location(source, source_option, "--source-option"),
            presets=tuple(complete(find_preset(name)) for name in codec or [DEFAULT]),
            baselines=tuple(one.value for one in baseline or (Baseline.AVIF, Baseline.WEBP, Baseline.JPEG)),
            work=keep or Path(folder),
            limit=limit,
            inception=inception,
            captions=captions.value,
        )
        evaluation = _evaluated(job)
    if as_json:
        from archiver.evaluation.report import to_json

        print_json(to_json(evaluation))
    else:
        _show(evaluation)
    if html is not None:
        from archiver.evaluation.html import page

        html.write_text(page(evaluation), encoding="utf-8")
        if not as_json:
            say(f"Plots, tables and pictures: {html}")
    if evaluation.failed:
        raise typer.Exit(FOUND)


def _check_writable(file: Path) -> None:
    """Before the work, not after it."""
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    folder = file.absolute().parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))


def _evaluated(job: "EvaluationJob") -> "Evaluation":
    from archiver.evaluation.run import Progress, evaluate

    with Meter("Evaluating", "steps") as meter:
        for event in evaluate(job):
            if not isinstance(event, Progress):
                return event
            meter.name(f"Evaluating: {event.phase}")
            meter.show(event.done, event.total)
    raise AssertionError("an evaluation without its end")


def _show(evaluation: "Evaluation") -> None:
    from archiver.evaluation.baselines import TITLES
    from archiver.evaluation.metrics import METRICS

    columns = [Column("codec"), Column("bpp", number=True), Column("bpp all-in", number=True)]
    columns += [Column(metric.title, number=True) for metric in METRICS]
    columns += [Column("encode MPix/s", number=True), Column("decode", number=True)]
    rows: list[list[str]] = []
    for codec in evaluation.codecs:
        values = [f"{codec.sums.scores.of(metric):.{metric.places}f}" for metric in METRICS]
        speeds = [f"{side.megapixels_per_second:.2f}" for side in (codec.encode, codec.decode)]
        rows.append([codec.preset, f"{codec.sums.bpp_mean:.4f}", f"{codec.bpp_all_in:.4f}", *values, *speeds])
        for name, matched in evaluation.matched_at(codec.preset).items():
            sums = matched.sums
            values = [f"{sums.scores.of(metric):.{metric.places}f}" for metric in METRICS]
            over = f" ({matched.over} too large)" if matched.over else ""
            rows.append([f"  {TITLES[name]}{over}", f"{sums.bpp_mean:.4f}", "", *values, "", ""])
    say(f"{count_text(len(evaluation.pictures), 'picture')} of {evaluation.source}")
    print_table(columns, rows)
    for key, why in evaluation.left_out.items():
        say(f"left out: {key}: {why}")
