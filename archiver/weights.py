"""The weights on this machine, sha256 -> file: those that come with the program, and those that a user imported.

What `archiver weights import` wrote is remembered in a folder of the user's, one PRESET.json for each preset that it
completes, in place of the weights that come with the program where there are some:
{"preset": NAME, "weights": [sha256, ... in the order of the spec], "folder": where the files lie}.
"""

import json
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from archiver.presets import PRESETS, Family, Preset, family_of
from manifests.records import CodecSpec

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
    """What completes a preset."""

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
    with _whole(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file


def forget(found: Import) -> None:
    """Inverse of `remember`: the preset is again as it comes with the program; files stay."""
    (imported_folder() / f"{found.preset}.json").unlink(missing_ok=True)


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Where to write what is `file` when all is written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.parent / f".{file.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield unfinished
        os.replace(unfinished, file)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


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
    imported = [pair for found in imports() for pair in found.files.items()]
    # The same file may have been imported to several folders: one where it still lies counts.
    return {**dict(sorted(imported, key=lambda pair: pair[1].is_file())), **shipped_weights()}


def complete(preset: Preset) -> Preset:
    """The preset with all its weights named, imported ones if there are; ValueError where some are missing."""
    found = next((found for found in imports() if found.preset == preset.name), None)
    if found is None:
        if preset.imported:
            raise ValueError(
                f"preset {preset.name} needs weights that do not come with the program: {how_to_import(preset)}"
            )
        return preset
    completed = replace(preset, spec=replace(preset.spec, weights=found.weights))
    files_of(completed)
    return completed


def files_of(preset: Preset) -> Mapping[str, Path]:
    """The weights that the preset names, sha256 -> file; ValueError where one is gone."""
    here = local_weights()
    found = {sha256: here[sha256] for sha256 in preset.spec.weights}
    for file in found.values():
        if not file.is_file():
            family = family_of(preset.name)
            back = f", or archiver weights forget {family.name}" if family and not preset.imported else ""
            raise ValueError(
                f"preset {preset.name}: {file} is gone; import it again: {how_to_import(preset)}{back}"
            )
    return found


def find_spec(spec_id: str) -> tuple[CodecSpec, Mapping[str, Path]]:
    """The spec of an id, and its weights: of a preset as it comes with the program, or with what was imported for it.

    ValueError where it is of neither, or its weights are gone.
    """
    imported = {found.preset: found.weights for found in imports()}
    for preset in PRESETS:
        for weights in (preset.spec.weights, imported.get(preset.name, ())):
            spec = replace(preset.spec, weights=weights)
            if spec.id == spec_id:
                return spec, files_of(replace(preset, spec=spec))
    raise ValueError(f"spec {spec_id} is of no preset of this program: name the archive with --archive")


def how_to_import(preset: Preset) -> str:
    """Example: perco-sd-0.0313 -> "archiver weights import perco-sd CHECKPOINT --base FOLDER --rate 0.0313"."""
    family = family_of(preset.name)
    assert family is not None
    words = f"archiver weights import {family.name}"
    if not family.published:
        return f"{words} FILE"
    return f"{words} CHECKPOINT --base FOLDER_OR_HUB_ID --rate {preset.name.removeprefix(family.name + '-')}"


def how_to_use(recipe: str, file: Path, parts: Mapping[str, Path]) -> str | None:
    """The command that completes presets with what a recipe has trained on `parts`; None where there are no such."""
    family = family_of(recipe)
    if family is None:
        return None
    words = ["archiver", "weights", "import", family.name, str(file)]
    if any(preset.name == recipe for preset in family.presets):
        words += ["--rate", recipe.removeprefix(family.name + "-")]
    for name in family.parts:
        if name in parts:
            words += ["--part", f"{name}={parts[name]}"]
    return shlex.join(words)


def import_trained(
    family: Family, file: Path, parts: Mapping[str, Path], presets: Sequence[Preset], folder: Path
) -> tuple[Sequence[Import], Mapping[str, str]]:
    """Those of the presets that a file of `archiver train` now completes, at least one, and of the others why not.

    `parts` are what the training built on, where that did not come with the program. Codecs of all presets are loaded
    first: where none can be, ValueError, and nothing has changed.
    """
    from archiver.codecs import load_codec
    from pipelines.weights import sha256_of_file

    files = [file, *_parts(family, file, parts)]
    weights = tuple(sha256_of_file(one) for one in files)
    named = dict(zip(weights, files, strict=True))
    refused: dict[str, str] = {}
    for preset in presets:
        try:
            load_codec(replace(preset.spec, weights=weights), named, "cpu")
        except ValueError as error:
            refused[preset.name] = str(error)
    if len(refused) == len(presets):
        raise ValueError(f"{file} fits no preset of {family.name}: {next(iter(refused.values()))}")
    for sha256, one in named.items():
        _keep(one, sha256, folder)
    completed = [Import(preset.name, weights, folder) for preset in presets if preset.name not in refused]
    for found in completed:
        remember(found)
    return completed, refused


def _parts(family: Family, file: Path, given: Mapping[str, Path]) -> Sequence[Path]:
    """What lies beside the file in a spec; ValueError where it is missing, or is not what the file was trained on."""
    from pipelines.weights import sha256_of_file

    if unknown := sorted(set(given) - set(family.parts)):
        raise ValueError(
            f"{family.name} builds on {', '.join(family.parts) or 'nothing'}, not on {unknown[0]}"
        )
    told, here, found = _built_on(file), local_weights(), []
    for name in family.parts:
        part = given.get(name) or here.get(told.get(name, ""))
        if part is None and name not in told:
            with suppress(ValueError):
                part = named_weights(name)
        if part is None:
            raise ValueError(f"{file} builds on {name}, which is not here: --part {name}=FILE")
        if sha256_of_file(part) != told.get(name, sha256_of_file(part)):
            raise ValueError(f"{file} was trained on another {name} than {part}, of sha256 {told[name]}")
        found.append(part)
    return found


def _built_on(file: Path) -> Mapping[str, str]:
    """The sha256 of parts, by name, that `archiver train` noted beside its file; none where the note is not there."""
    note = file.parent / "facts.json"
    if not note.is_file():
        return {}
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        told = dict(facts["parts"]) if facts["recipe"] == file.stem else {}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{note} is not what `archiver train` writes beside its weights: {error}") from error
    return {name: str(sha256) for name, sha256 in told.items()}


def _keep(file: Path, sha256: str, folder: Path) -> None:
    """A copy named by its hash; ValueError where the file is not what it was."""
    from pipelines.weights import sha256_of_file

    kept = folder / f"{sha256}.safetensors"
    if kept.is_file() and sha256_of_file(kept) == sha256:
        return
    with _whole(kept) as unfinished:
        shutil.copyfile(file, unfinished)
        if sha256_of_file(unfinished) != sha256:
            raise ValueError(f"{file} changed while it was read")
