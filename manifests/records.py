"""The values that an archive keeps: codec specs, encoded images, and one record a key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Param = int | float | str | bool


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
        """Inverse of `to_json`."""
        found = json.loads(content)
        return CodecSpec(found["name"], found["version"], found["params"], tuple(found["weights"]))

    @property
    def id(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]


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
