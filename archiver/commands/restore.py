"""`archiver restore`: rows of an archive into image files."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.commands.options import (
    FOUND,
    TERMINATED,
    ArchiveArgument,
    ArchiveOptions,
    AsJson,
    Limit,
    Where,
    location,
)
from archiver.console import bytes_text, complain, count_text, duration_text, print_json, say
from archiver.progress import Meter

if TYPE_CHECKING:
    from pipelines.restore import Finished, RestoreJob, RestorePlan


class FileFormat(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"


class Decoding(StrEnum):
    FULL = "full"
    COARSE = "coarse"


def restore(
    archive: ArchiveArgument,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Folder or s3://BUCKET/PREFIX for the files: OUTPUT/<key> with the format's suffix instead of the "
            "key's, or after it where two keys would share a file: b.jpg.png, b.gif.png.",
        ),
    ],
    where: Where = None,
    keys_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Only these keys, one a line; - is stdin.")
    ] = None,
    limit: Limit = None,
    format: Annotated[FileFormat, typer.Option(help="png keeps every pixel as decoded.")] = FileFormat.PNG,
    decode: Annotated[
        Decoding,
        typer.Option(
            help="coarse: a fast preview, of codecs that draw on one (sprdiff, layered); nothing in it is invented."
        ),
    ] = Decoding.FULL,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there; else they are kept.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ray actors; 0: decode in this process.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count rows, parts, bytes and requests; write nothing.")
    ] = False,
    archive_option: ArchiveOptions = None,
    output_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="How to reach the output: as --archive-option. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore images by SQL condition, in exactly their source's size, each marked as a reconstruction."""
    from pipelines.restore import RestoreJob
    from pipelines.select import open_archive

    place = location(archive, archive_option)
    job = RestoreJob(
        archive=place,
        output=location(output, output_option, "--output-option"),
        where=where,
        keys=None if keys_file is None else _keys(keys_file),
        limit=limit,
        format=format.value,
        overwrite=overwrite,
        workers=workers,
        # Networks are what a GPU is for.
        gpu=next(open_archive(place).store.list("weights"), None) is not None,
    )
    if dry_run:
        _plan(job, as_json)
    else:
        _restore(job, decode, as_json)


def _keys(file: str) -> tuple[str, ...]:
    text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    return tuple(key for key in text.split("\n") if key)


def _plan(job: "RestoreJob", as_json: bool) -> None:
    from pipelines.prices import load_prices
    from pipelines.restore import plan_restore

    plan = plan_restore(job, load_prices())
    for lost in plan.lost:
        complain(f"archiver restore: {lost.key}: {lost.why}")
    if as_json:
        print_json(
            {
                "archive": str(job.archive),
                "output": str(job.output),
                **vars(plan),
                "lost": [vars(lost) for lost in plan.lost],
            }
        )
    else:
        say(*_plan_lines(plan))
    if plan.lost:
        raise typer.Exit(FOUND)


def _plan_lines(plan: "RestorePlan") -> list[str]:
    from pipelines.verdict import dollars_text

    lines = [
        f"{count_text(plan.rows, 'image')} from {count_text(plan.parts, 'part')}: "
        f"at most {bytes_text(plan.bytes)} in {count_text(plan.requests, 'request')}"
        + (f", {dollars_text(plan.dollars)}" if plan.dollars else "")
    ]
    if plan.lost:
        lines.append(f"  {count_text(len(plan.lost), 'key')} cannot be restored")
    if plan.alike:
        lines.append(f"  {_alike(plan.alike)}")
    return [*lines, "Nothing was written."]


def _alike(paths: tuple[str, ...]) -> str:
    return (
        f"{count_text(len(paths), 'file')} would differ in upper and lower case only, such as {paths[0]}: "
        "some file systems take them as one"
    )


def _restore(job: "RestoreJob", decode: Decoding, as_json: bool) -> None:
    from archiver.codecs import load_codec
    from archiver.codecs.coarse import load_coarse
    from pipelines.restore import Finished, Kept, Lost, Planned, Written, restore
    from pipelines.weights import default_cache

    load = load_codec if decode is Decoding.FULL else load_coarse
    finished, lost, done, total, captions_lost = None, [], 0, 0, 0
    with Meter("Restoring", "images") as meter:
        for event in restore(job, load, default_cache()):
            match event:
                case Planned(plan=plan):
                    total = plan.rows
                    meter.begin(0, total)
                    if plan.alike:
                        complain(f"archiver restore: {_alike(plan.alike)}")
                case Lost():
                    lost.append(event)
                    complain(f"archiver restore: {event.key}: {event.why}")
                case Written(key=key, caption_lost=True):
                    captions_lost += 1
                    complain(f"archiver restore: {key}: its caption is damaged; the image is not")
                case Finished():
                    finished = event
            done += isinstance(event, Written | Kept)
            meter.show(done, total)
    assert finished is not None
    if as_json:
        print_json(
            {
                "archive": str(job.archive),
                "output": str(job.output),
                **vars(finished),
                "lost": [vars(found) for found in lost],
            }
        )
    else:
        say(*_summary(job, finished))
    if not finished.complete:
        complain("archiver restore: stopped before the end; the same command goes on from here")
        raise typer.Exit(TERMINATED)
    if lost or captions_lost:
        raise typer.Exit(FOUND)


def _summary(job: "RestoreJob", finished: "Finished") -> list[str]:
    lines = [
        f"{count_text(finished.written, 'image')} restored to {job.output} in {duration_text(finished.seconds)}"
        + (f": {bytes_text(finished.written_bytes)} of {job.format} files" if finished.written else "")
    ]
    if finished.kept:
        was, it = ("was", "it") if finished.kept == 1 else ("were", "them")
        lines.append(f"  {finished.kept:,} {was} there already; --overwrite replaces {it}")
    if finished.lost:
        lines.append(f"  {finished.lost:,} could not be restored; archiver verify says more")
    return lines
