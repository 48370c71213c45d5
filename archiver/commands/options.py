"""Arguments and options that several verbs share, and the exit codes."""

from collections.abc import Sequence
from typing import Annotated

import typer

from manifests.storage import LOCAL, Location, locate

OK, FOUND, WRONG = 0, 1, 2  # all well; done, but not all is well; not done
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # 128 + signal, as shells count

ArchiveArgument = Annotated[
    str, typer.Argument(metavar="ARCHIVE", help="Folder or s3://BUCKET/PREFIX of the archive.")
]
ArchiveOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--archive-option",
        metavar="NAME=VALUE",
        help="How to reach the archive: profile, endpoint_url, region, key, secret, ... Repeatable.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Condition over key, caption, width, height, source_bytes, mtime, bitstream_bytes, bpp, codec, spec, "
        "run, notes; for example \"caption like '%dog%' and width > 2000\". codec is a family of presets, which "
        "differ in spec, see `archiver codecs --json`.",
    ),
]
WhereFailed = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Condition over key, source_bytes, mtime, codec, spec, run, notes, failure; for example "
        "\"failure like 'damaged%'\".",
    ),
]
Limit = Annotated[int | None, typer.Option(min=0, metavar="N", help="At most so many, first keys first.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else there.")]


def location(url: str, options: Sequence[str] | None, flag: str = "--archive-option") -> Location:
    """The place that a URL and its NAME=VALUE options name."""
    return locate(url, named_values(options, flag))


def named_values(options: Sequence[str] | None, flag: str) -> dict[str, str]:
    """Options of the form NAME=VALUE."""
    pairs = {}
    for option in options or ():
        name, separator, value = option.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{name!r}, expected NAME=VALUE", param_hint=flag)
        pairs[name] = value
    return pairs


def location_beside(url: str, options: Sequence[str] | None, flag: str) -> Location:
    """As `location`, but the options are meant for a bucket and do not bother a local path."""
    return location(url, None if locate(url).scheme == LOCAL else options, flag)
