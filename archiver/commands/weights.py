"""`archiver weights`: what networks there are on this machine, and those of others made ready for use."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archiver.commands.options import AsJson
from archiver.console import Column, bytes_text, print_json, print_table, say
from archiver.presets import PRESETS, find_preset
from archiver.weights import Import, imported_folder, imports, remember, shipped_weights

weights = typer.Typer(no_args_is_help=True)


class Family(StrEnum):
    PERCO_SD = "perco-sd"


@weights.callback()
def _weights() -> None:
    """List the networks on this machine; make published ones ready for `archiver encode`."""


@weights.command("import")
def import_(
    family: Annotated[Family, typer.Argument(metavar="FAMILY", help="Whose: perco-sd.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a published model: for perco-sd it holds hyper_enc/ and unet/.")
    ],
    rate: Annotated[
        str, typer.Option(metavar="BPP", help="Which preset of the family the model is for: 0.0313, ...")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER_OR_HUB_ID",
            help="Stable Diffusion 2.1 in diffusers' layout; not needed where CHECKPOINT holds it.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where files go.", show_default="the user's data folder"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check and convert a published model; its preset can then be encoded with."""
    from archiver.codecs.perco_import import check_rate, import_perco

    check_rate(rate)
    preset = find_preset(f"{family}-{rate}")
    folder = out or imported_folder()
    written = import_perco(checkpoint, base, rate, folder)
    found = Import(preset.name, tuple(file.stem for file in written), folder)
    remember(found)
    command = f"archiver encode SOURCE ARCHIVE --codec {preset.name} --captions CAPTIONS"
    if as_json:
        print_json(
            {
                "preset": preset.name,
                "weights": list(found.weights),
                "folder": str(folder.absolute()),
                "command": command,
            }
        )
        return
    say(f"{preset.name} is complete, in {folder}:")
    say(*(f"  {file.stem}  {bytes_text(file.stat().st_size)}" for file in written))
    say(f"Encode with: {command}")


@weights.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List weights files, the presets that need them, and where they lie."""
    users: dict[str, list[str]] = {}
    for preset in PRESETS:
        for sha256 in preset.spec.weights:
            users.setdefault(sha256, []).append(preset.name)
    files = dict(shipped_weights())
    for found in imports():
        for sha256, file in found.files.items():
            users.setdefault(sha256, []).append(found.preset)
            files[sha256] = file
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
