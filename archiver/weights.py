"""The weights that come with the program: sha256 -> file."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

# Each file has a model card of the same name beside it.
SHIPPED: dict[str, str] = {}


def shipped_weights() -> Mapping[str, Path]:
    """All weights that this installation carries, by the sha256 that specs name them by."""
    folder = Path(str(files("archiver").joinpath("shipped")))
    return {sha256: folder / name for sha256, name in SHIPPED.items()}
