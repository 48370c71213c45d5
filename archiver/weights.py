"""The weights on this machine, sha256 -> file: those that come with the program, and those that a user imported.

What `archiver weights import` wrote is remembered in a folder of the user's, one PRESET.json for each preset that it
completes: {"preset": NAME, "weights": [sha256, ... in the order of the spec], "folder": where the files lie}.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from archiver.presets import Preset

# Each file has a model card of the same name beside it.
SHIPPED: dict[str, str] = {
    "1a3e7bb89c0a11ebd4db793793ef0f5bc6ef8090cdf9bcffd29776267ab53c75": "layered-9.safetensors",
    "4453ac034ba7f6a4ccadf55459b0468a0c3ff8ef62c384aa85bbb66f88373e20": "gan-3.safetensors",
    "e1977c05755a12d9b02036de9ef7a2e7ba752923c9f3991b59ca2532ed9ebb7a": "sprdiff-tiny-2.safetensors",
    "a1ec670347bedeccd25a433812912e1f53c6a8a3729f0798921acc1dbae85f8d": "perco-tiny-1.safetensors",
    "e5b1ffc24f9c8cb24aaef6a52da2f944c8c487a2cbea336997f02a8ef72d2506": "autoencoder-mse-1.safetensors",
    "fbc6b1451eea7e4ac2902349442b61002d6191a138083e310458073f3bd4c0b5": "autoencoder-1.safetensors",
}


def shipped_weights() -> Mapping[str, Path]:
    """All weights that this installation carries, by the sha256 that specs name them by."""
    folder = Path(str(files("archiver").joinpath("shipped")))
    return {sha256: folder / name for sha256, name in SHIPPED.items()}


def named_weights(name: str) -> Path:
    """The newest file of a name, "layered" for layered-9.safetensors, or the one of a name with its number.

    ValueError where none comes with the program.
    """
    versions = {
        int(file.stem.rpartition("-")[2]): file
        for file in shipped_weights().values()
        if name in (file.stem, file.stem.rpartition("-")[0])
    }
    if not versions:
        raise ValueError(f"no weights {name!r} come with this program: name a file of them")
    return versions[max(versions)]


@dataclass(frozen=True)
class Import:
    """What completes a preset that the program comes without the weights of."""

    preset: str
    weights: tuple[str, ...]  # sha256, in the order of the spec
    folder: Path  # where SHA256.safetensors lie

    @property
    def files(self) -> Mapping[str, Path]:
        return {sha256: self.folder / f"{sha256}.safetensors" for sha256 in self.weights}


def imported_folder() -> Path:
    """Where imported weights go by default, and where imports are remembered: of this user, not of a project."""
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is none.
    home = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
    return home / "archiver" / "weights"


def remember(found: Import) -> Path:
    """From now on the preset is complete; an earlier import of it is forgotten, its files stay."""
    file = imported_folder() / f"{found.preset}.json"
    content = {"preset": found.preset, "weights": list(found.weights), "folder": str(found.folder.absolute())}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.parent / f".{file.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, file)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return file


def imports() -> Sequence[Import]:
    """All that are remembered, by preset; ValueError for a record that is none."""
    return [_recalled(file) for file in sorted(imported_folder().glob("*.json"))]


def _recalled(file: Path) -> Import:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        preset, weights, folder = found["preset"], found["weights"], Path(found["folder"])
        if preset != file.stem or not all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in weights):
            raise ValueError(f"of preset {preset!r}, weights {weights!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no record of an import ({error}): delete it, and import again"
        ) from error
    return Import(preset, tuple(weights), folder)


def local_weights() -> Mapping[str, Path]:
    """All weights on this machine, by the sha256 that specs name them by."""
    return {
        **{sha256: file for found in imports() for sha256, file in found.files.items()},
        **shipped_weights(),
    }


def complete(preset: Preset) -> Preset:
    """The preset with all its weights named; ValueError where they first have to be imported."""
    if not preset.imported:
        return preset
    found = next((found for found in imports() if found.preset == preset.name), None)
    if found is None:
        raise ValueError(
            f"preset {preset.name} needs weights that do not come with the program: {how_to_import(preset)}"
        )
    for file in found.files.values():
        if not file.is_file():
            raise ValueError(
                f"preset {preset.name}: {file} is gone; import it again: {how_to_import(preset)}"
            )
    return replace(preset, spec=replace(preset.spec, weights=found.weights))


def how_to_import(preset: Preset) -> str:
    """Example: perco-sd-0.0313 -> "archiver weights import perco-sd CHECKPOINT --base FOLDER --rate 0.0313"."""
    family, _, rate = preset.name.rpartition("-")
    return f"archiver weights import {family} CHECKPOINT --base FOLDER_OR_HUB_ID --rate {rate}"
