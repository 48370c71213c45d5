"""`archiver weights`: what networks there are on this machine, and those of others made ready for use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from archiver.commands.options import AsJson, named_values
from archiver.console import Column, bytes_text, print_json, print_table, say
from archiver.presets import FAMILIES, PRESETS, Family, find_family, find_preset
from archiver.weights import (
    Import,
    forget,
    import_trained,
    imported_folder,
    imports,
    local_weights,
    remember,
    shipped_weights,
)

weights = typer.Typer(no_args_is_help=True)

FamilyArgument = Annotated[
    str,
    typer.Argument(metavar="FAMILY", help=f"Of presets: {', '.join(family.name for family in FAMILIES)}."),
]


@weights.callback()
def _weights() -> None:
    """List the networks on this machine; make trained and published ones ready for `archiver encode`."""


@weights.command("import")
def import_(
    family: FamilyArgument,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_FOLDER",
            help="What `archiver train` wrote, NAME.safetensors; for perco-sd also the folder of a published model, "
            "which holds hyper_enc/ and unet/.",
        ),
    ],
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="BPP",
            help="Which preset of the family it is for: 0.0313, ... Needed for a folder.",
            show_default="of a file: all that it fits",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="What the training built on, where that did not come with the program. Repeatable.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER_OR_HUB_ID",
            help="Stable Diffusion 2.1 in diffusers' layout; for a folder that does not hold it.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where files go.", show_default="the user's data folder"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a trained or published model and keep a copy: from now on its presets encode with it.

    What was archived before keeps its own weights. `archiver weights forget FAMILY` goes back.
    """
    chosen, folder = find_family(family), out or imported_folder()
    parts = {name: Path(file) for name, file in named_values(part, "--part").items()}
    refused: Mapping[str, str] = {}
    if source.is_dir():
        completed: Sequence[Import] = [_import_published(chosen, source, base, rate, parts, folder)]
    elif base is not None:
        raise ValueError(f"{source} is no folder of a published model, and --base is for these alone")
    else:
        presets = [find_preset(f"{chosen.name}-{rate}")] if rate else chosen.presets
        completed, refused = import_trained(chosen, source, parts, presets, folder)
    first = find_preset(completed[0].preset)
    captions = " --captions CAPTIONS" if first.reads_caption else ""
    command = f"archiver encode SOURCE ARCHIVE --codec {first.name}{captions}"
    if as_json:
        print_json(
            {
                "presets": [found.preset for found in completed],
                "not_for": refused,
                "weights": list(completed[0].weights),
                "folder": str(folder.absolute()),
                "command": command,
            }
        )
        return
    say(f"{', '.join(found.preset for found in completed)} now use, in {folder}:")
    say(*(f"  {sha256}  {bytes_text(file.stat().st_size)}" for sha256, file in completed[0].files.items()))
    say(*(f"Not for {name}: {why}" for name, why in refused.items()))
    say(f"Encode with: {command}")


def _import_published(
    family: Family, source: Path, base: str | None, rate: str | None, parts: Mapping[str, Path], folder: Path
) -> Import:
    from archiver.codecs.perco_import import check_rate, import_perco

    if not family.published:
        raise ValueError(f"{source} is a folder, expected the file that `archiver train` wrote")
    if rate is None or parts:
        raise ValueError(f"{source} is a folder: expected --rate, and no --part")
    check_rate(rate)
    preset = find_preset(f"{family.name}-{rate}")
    written = import_perco(source, base, rate, folder)
    found = Import(preset.name, tuple(file.stem for file in written), folder)
    remember(found)
    return found


@weights.command("forget")
def forget_(family: FamilyArgument, as_json: AsJson = False) -> None:
    """Go back to the weights that come with the program. The files of imported ones stay where they are."""
    names = {preset.name for preset in find_family(family).presets}
    forgotten = [found for found in imports() if found.preset in names]
    if not forgotten:
        raise ValueError(f"no weights of {family} are imported")
    for found in forgotten:
        forget(found)
    files = sorted({str(file) for found in forgotten for file in found.files.values()})
    if as_json:
        print_json({"presets": [found.preset for found in forgotten], "files": files})
        return
    say(f"{', '.join(found.preset for found in forgotten)} are as they come with the program. These stay:")
    say(*(f"  {file}" for file in files))


@weights.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List weights files, the presets that use them, and where they lie."""
    there = {found.preset: found.weights for found in imports()}
    users: dict[str, list[str]] = {}
    for preset in PRESETS:
        for sha256 in there.get(preset.name, preset.spec.weights):
            users.setdefault(sha256, []).append(preset.name)
    left = {file.stem: file for file in sorted(imported_folder().glob("*.safetensors"))}
    files = {**shipped_weights(), **left, **local_weights()}
    sizes = {sha256: file.stat().st_size if file.is_file() else None for sha256, file in files.items()}
    if as_json:
        print_json(
            [
                {
                    "sha256": sha256,
                    "bytes": sizes[sha256],
                    "file": str(file),
                    "presets": users.get(sha256, []),
                }
                for sha256, file in files.items()
            ]
        )
        return
    print_table(
        [
            Column("sha256"),
            Column("size", number=True),
            Column("presets"),
            Column("file", least=100),
        ],
        [
            (
                sha256[:12],
                "gone" if (size := sizes[sha256]) is None else bytes_text(size),
                ", ".join(users.get(sha256, [])),
                str(file),
            )
            for sha256, file in files.items()
        ],
    )
