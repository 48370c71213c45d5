"""The weights that come with the program: sha256 -> file."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

# Each file has a model card of the same name beside it.
SHIPPED: dict[str, str] = {
    "e71bb164b6a4c08ca83b4a6360423422cb01cd5ff309646aee321c8ce32014af": "layered-1.safetensors",
}


def shipped_weights() -> Mapping[str, Path]:
    """All weights that this installation carries, by the sha256 that specs name them by."""
    folder = Path(str(files("archiver").joinpath("shipped")))
    return {sha256: folder / name for sha256, name in SHIPPED.items()}


def named_weights(name: str) -> Path:
    """The newest file of a name, "layered" for layered-1.safetensors; ValueError where none comes with the program."""
    versions = {
        int(file.stem.rpartition("-")[2]): file
        for file in shipped_weights().values()
        if file.stem.rpartition("-")[0] == name
    }
    if not versions:
        raise ValueError(f"no weights {name!r} come with this program: name a file of them")
    return versions[max(versions)]
