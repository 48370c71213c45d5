"""A codec that keeps the mean colour, and one pixel of a picture can make it fail in each way that codecs do."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

SPEC = CodecSpec("toy", 1)
CLEAN, KILLS, REFUSED, RAISES, HANGS = (10, 0, 0), (255, 0, 1), (255, 0, 2), (255, 0, 3), (255, 0, 4)
READING_SPEC = CodecSpec("toy", 1, {"reads_caption": True})  # what it decodes to depends on the caption, too
SLOW_SPEC = CodecSpec("toy", 1, {"seconds": 0.02})  # an image


@dataclass(frozen=True)
class ToyCodec:
    """A `Codec`; made by `load_toy`."""

    spec: CodecSpec
    batch: int = 4

    @property
    def reads_caption(self) -> bool:
        return bool(self.spec.params.get("reads_caption", False))

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        time.sleep(float(self.spec.params.get("seconds", 0)) * len(pictures))
        for picture in pictures:
            match tuple(picture.pixels_hwc[0, 0].tolist()):
                case (255, 0, 1):
                    os.kill(os.getpid(), signal.SIGKILL)
                case (255, 0, 2):
                    raise ValueError("a colour that toys refuse")
                case (255, 0, 3):
                    raise RuntimeError("a bug in\nthe codec")
                case (255, 0, 4):
                    time.sleep(3600)
        return [
            EncodedImage(bytes(mean_colour(p.pixels_hwc)), p.caption, *p.pixels_hwc.shape[:2])
            for p in pictures
        ]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        shift = [len(e.caption or "") if self.reads_caption else 0 for e in encoded]
        return [
            np.full((e.height, e.width, 3), [(level + more) % 256 for level in e.bitstream], np.uint8)
            for e, more in zip(encoded, shift, strict=True)
        ]


def mean_colour(pixels_hwc: Pixels) -> list[int]:
    return [int(level) for level in pixels_hwc.mean(axis=(0, 1))]


def load_toy(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> ToyCodec:
    """Leaves its process's id behind where the spec names a folder for it."""
    if "pids" in spec.params:
        Path(str(spec.params["pids"]), str(os.getpid())).touch()
    return ToyCodec(spec)
