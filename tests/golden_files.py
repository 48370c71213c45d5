"""Golden bitstreams: what an earlier version of a codec wrote, and the picture that it decoded to.

    tests/golden/<spec id>/spec.json             the spec
    tests/golden/<spec id>/<name>.bitstream
    tests/golden/<spec id>/<name>.json           caption, height, width, sha256 of what decodes exactly
    tests/golden/<spec id>/<name>.png            the decoded picture, right within the codec's tolerance

Only `python tests/make_golden.py PRESET` writes them. A codec that no longer reads them needs a new version.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Pixels

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """One picture of an earlier version."""

    name: str
    encoded: EncodedImage
    exact_sha256: str
    pixels_hwc: Pixels


def read_golden(spec: CodecSpec) -> list[Golden]:
    """All golden pictures of a spec; none is an error, for a test that finds nothing tests nothing."""
    folder = FOLDER / spec.id
    names = sorted(file.stem for file in folder.glob("*.bitstream"))
    if not names:
        raise FileNotFoundError(f"no golden files in {folder}: python tests/make_golden.py PRESET makes them")
    return [_read(folder, name) for name in names]


def write_golden(spec: CodecSpec, goldens: list[Golden]) -> Path:
    """Inverse of `read_golden`; refuses to write over golden files."""
    folder = FOLDER / spec.id
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(spec.to_json() + b"\n")
    for golden in goldens:
        facts = {
            "caption": golden.encoded.caption,
            "height": golden.encoded.height,
            "width": golden.encoded.width,
            "exact_sha256": golden.exact_sha256,
        }
        file = io.BytesIO()
        Image.fromarray(golden.pixels_hwc).save(file, "PNG", optimize=True)
        (folder / f"{golden.name}.bitstream").write_bytes(golden.encoded.bitstream)
        (folder / f"{golden.name}.json").write_text(json.dumps(facts, indent=1) + "\n")
        (folder / f"{golden.name}.png").write_bytes(file.getvalue())
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path, name: str) -> Golden:
    facts = json.loads((folder / f"{name}.json").read_text())
    bitstream = (folder / f"{name}.bitstream").read_bytes()
    encoded = EncodedImage(bitstream, facts["caption"], facts["height"], facts["width"])
    return Golden(name, encoded, facts["exact_sha256"], np.array(Image.open(folder / f"{name}.png")))
