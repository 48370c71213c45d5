"""Published folders of weights (diffusers, transformers) -> tensors by name, read without executing anything.

A folder has config.json and one of
    NAME.safetensors, NAME.safetensors.index.json (several files), NAME.bin (a pickle, read as tensors alone),
each also as NAME.fp16.…, for NAME in `STEMS`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # diffusers', transformers', both before 2023


@dataclass(frozen=True)
class Part:
    """A network as it was published; tensors are read when they are asked for."""

    folder: Path
    config: Mapping[str, object]
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


def open_part(folder: Path) -> Part:
    """FileNotFoundError or ValueError, in one line, for a folder that holds no such network."""
    config = read_json(folder / "config.json")
    files = _files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    readers: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        for name, (shape, read) in _tensors(file).items():
            shapes[name], readers[name] = shape, read
    return Part(folder, config, shapes, lambda name: readers[name]())


def read_json(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no JSON object")
    return found


def fit(part: Part, names: Mapping[str, str], expected: Mapping[str, Iterable[int]], spare: set[str]) -> None:
    """ValueError unless a part has all of `expected` (our name -> shape) under `names` (our name -> theirs).

    Beside them it may have `spare` ones. Shapes that differ by an axis of 1 are the same.
    """
    missing = sorted(theirs for theirs in names.values() if theirs not in part.shapes)
    if missing:
        raise ValueError(f"{part.folder} has no tensor {_some(missing)}")
    unknown = sorted(set(part.shapes) - set(names.values()) - spare)
    if unknown:
        raise ValueError(f"{part.folder} has the tensor {_some(unknown)}, which this program does not know")
    for ours, theirs in names.items():
        found, wanted = part.shapes[theirs], tuple(expected[ours])
        if [side for side in found if side != 1] != [side for side in wanted if side != 1]:
            raise ValueError(f"{part.folder}: {theirs} is of shape {found}, expected {wanted}")


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _files(folder: Path) -> list[Path]:
    for stem in (f"{stem}{variant}" for variant in ("", ".fp16") for stem in STEMS):
        for suffix in (".safetensors", ".bin"):
            file, index = folder / (stem + suffix), folder / (stem + suffix + ".index.json")
            if file.is_file():
                return [file]
            if index.is_file():
                return [folder / name for name in sorted(_indexed(index))]
    raise FileNotFoundError(f"{folder}/{STEMS[0]}.safetensors, or .bin, or model.safetensors")


def _indexed(index: Path) -> set[str]:
    parts = read_json(index).get("weight_map")
    names = set(parts.values()) if isinstance(parts, dict) else set()
    if not names or any(not isinstance(name, str) or "/" in name or "\\" in name for name in names):
        raise ValueError(f"{index} names no files beside it")
    return names


def _tensors(file: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    """Name -> shape, and what reads it."""
    if file.suffix == ".safetensors":
        try:
            found = safe_open(file, "pt")
            with found as opened:
                shapes = {
                    name: tuple(opened.get_slice(name).get_shape())
                    for name in opened.keys()  # noqa: SIM118
                }
        except SafetensorError as error:
            raise ValueError(f"{file} is no safetensors file: {error}") from error
        return {name: (shape, partial(_read, file, name)) for name, shape in shapes.items()}
    try:
        # Never without weights_only: a pickle can hold any program.
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is no file of tensors alone, and is not read: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise ValueError(f"{file} holds something else than tensors by name")
    return {name: (tuple(tensor.shape), partial(_same, tensor)) for name, tensor in loaded.items()}


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor
