"""The values that an archive keeps: codec specs, encoded images, and one record a key."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

Param = int | float | str | bool
SPEC_MEMBERS = {"name": str, "version": int, "params": dict[str, Param], "weights": list[str]}  # in JSON


@dataclass(frozen=True)
class CodecSpec:
    """All that decoding needs besides weights: which codec, its version, its parameters, and the weights' sha256."""

    name: str
    version: int
    params: Mapping[str, Param] = field(default_factory=dict)
    weights: tuple[str, ...] = ()  # sha256, hex

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8; equal specs give equal bytes."""
        content = {
            "name": self.name,
            "version": self.version,
            "params": dict(self.params),
            "weights": list(self.weights),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @staticmethod
    def from_json(content: bytes) -> "CodecSpec":
        """Inverse of `to_json`; ValueError for what is no spec, or says more than this program knows."""
        what = "a codec spec"
        found = object_of(content, what)
        check_members(found, SPEC_MEMBERS, what)
        if more := sorted(found.keys() - SPEC_MEMBERS.keys()):
            raise ValueError(f"{what} says {more}, which only a newer program knows")
        return CodecSpec(found["name"], found["version"], found["params"], tuple(found["weights"]))

    @property
    def id(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]


def object_of(content: bytes, what: str) -> dict[str, Any]:
    """The members of a JSON object; ValueError where it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what} is {type(found).__name__} in JSON, expected an object")
    return found


def check_members(
    found: Mapping[str, object], kinds: Mapping[str, Any], what: str, optional: Iterable[str] = ()
) -> None:
    """ValueError where one is missing, or of another kind than those that it is to have."""
    if missing := [name for name in kinds if name not in found and name not in optional]:
        raise ValueError(f"{what} does not say {missing}")
    for name, kind in kinds.items():
        if name in found and not _is_of(found[name], kind):
            expected = kind if get_args(kind) else kind.__name__
            raise ValueError(f"{what} says {name} {repr(found[name])[:100]}, expected {expected}")


def _is_of(value: object, kind: Any) -> bool:
    """Example: _is_of({"cpu": 1}, dict[str, float]) -> True."""
    container, of = get_origin(kind), get_args(kind)
    if container is dict:
        return isinstance(value, dict) and all(_is_of(one, of[1]) for one in value.values())
    if container is list:
        return isinstance(value, list) and all(_is_of(one, of[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool or bool in of
    return isinstance(value, int | float if kind is float else kind)


@dataclass(frozen=True)
class EncodedImage:
    """What a codec made of one image, and all that it needs, with its spec and weights, to give the image back."""

    bitstream: bytes
    caption: str | None
    height: int  # pixels, after EXIF orientation
    width: int


@dataclass(frozen=True)
class Record:
    """One row of the archive's table: a key, and either its image or the reason why there is none."""

    key: str
    source_bytes: int
    mtime: int  # seconds since 1970, UTC, as the source tells it
    spec: str  # spec id
    image: EncodedImage | None
    failure: str | None = None
    notes: str | None = None  # what reading the image changed: "alpha flattened on white; first of 12 frames"
    digest: bytes | None = None  # first 16 bytes of the sha256 of the source file

    def __post_init__(self) -> None:
        if (self.image is None) == (self.failure is None):
            raise ValueError(f"record {self.key!r}: expected an image or a failure, not both, not neither")
