"""`archiver export` and `archiver decode`: one image out of an archive as a tiny file, and such a file as a PNG."""

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.commands.options import ArchiveArgument, ArchiveOptions, location
from archiver.console import bytes_text, say

if TYPE_CHECKING:
    from manifests.records import CodecSpec
    from pipelines.codec import Codec

_KEPT = "To be written; one that is there is kept."
NewFile = Annotated[Path, typer.Argument(metavar="FILE", help=_KEPT)]
NewPng = Annotated[Path, typer.Argument(metavar="PNG", help=_KEPT)]


def export(
    archive: ArchiveArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of an image; see `archiver ls`.")],
    file: NewFile,
    archive_option: ArchiveOptions = None,
) -> None:
    """Write one image of an archive, with its caption, as a file of its own. `archiver decode` reads it."""
    from archiver.codecs import load_codec
    from archiver.single_image import caption_table, pack
    from pipelines.restore import Lost, restore_rows
    from pipelines.select import open_archive
    from pipelines.weights import default_cache

    _check_new(file)
    opened = open_archive(location(archive, archive_option))
    # Decoded once, so that no file leaves that cannot be.
    (found,) = restore_rows(opened, [key], load_codec, default_cache(), "cpu")
    if isinstance(found, Lost):
        raise ValueError(f"{archive}: cannot export {key!r}: {found.why}")
    if found.caption_lost:
        raise ValueError(f"{archive}: cannot export {key!r}: its caption is damaged")
    image = found.record.image
    assert image is not None
    content = pack(image, found.record.spec, caption_table())
    _write_new(file, content)
    say(f"{file}: {bytes_text(len(content))}, of which {bytes_text(len(image.bitstream))} bitstream")


def decode(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written by `archiver export`.")],
    png: NewPng,
    archive: Annotated[
        str | None,
        typer.Option(metavar="ARCHIVE", help="Whose spec and weights to use, for those not installed here."),
    ] = None,
    archive_option: ArchiveOptions = None,
) -> None:
    """Decode one exported image into a PNG, which says that it is a reconstruction."""
    from archiver.single_image import caption_table, unpack
    from pipelines.codec import says_something
    from pipelines.decode import NO_CAPTION
    from pipelines.images import write_image
    from pipelines.provenance import Provenance

    _check_new(png)
    try:
        image, spec_id = unpack(file.read_bytes(), caption_table())
    except ValueError as error:
        raise ValueError(f"{file}: not an exported image: {error}") from error
    spec, codec = _codec(spec_id, archive, archive_option)
    if codec.reads_caption and not says_something(image.caption):
        raise ValueError(f"{file}: {NO_CAPTION}")
    (pixels_hwc,) = codec.decode([image])
    provenance = Provenance(
        codec=spec.name,
        spec=spec_id,
        bitstream_bytes=len(image.bitstream),
        archive=archive or str(file),
        key=file.name,
        caption=image.caption,
        generative=bool(spec.weights),
    )
    _write_new(png, write_image(pixels_hwc, "png", provenance))


def _codec(spec_id: str, archive: str | None, options: list[str] | None) -> "tuple[CodecSpec, Codec]":
    """The spec of an id, from an archive or from the presets, and its codec."""
    from archiver.codecs import load_codec

    if archive is not None:
        from pipelines.select import open_archive
        from pipelines.weights import default_cache, fetch_weights

        opened = open_archive(location(archive, options))
        spec = opened.spec(spec_id)
        return spec, load_codec(spec, fetch_weights(opened, spec, default_cache()), "cpu")
    from archiver.weights import find_spec

    spec, weights = find_spec(spec_id)
    return spec, load_codec(spec, weights, "cpu")


def _check_new(file: Path) -> None:
    """FileExistsError where it is there, NotADirectoryError where it would have no folder."""
    if file.exists() or file.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file))
    if not file.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(file.parent))


def _write_new(file: Path, content: bytes) -> None:
    """Whole or not at all; FileExistsError where it is there."""
    from manifests.storage import connect, locate

    _check_new(file)
    try:
        connect(locate(str(file.parent.absolute()))).write(file.name, content)
    except OSError as error:
        error.filename = str(file)
        raise
