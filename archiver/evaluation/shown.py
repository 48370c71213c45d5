"""One original and its reconstructions -> files that the report shows, with their captions."""

import io

import numpy as np
from PIL import Image

from archiver.evaluation.baselines import TITLES, Match
from archiver.evaluation.results import PictureResult, Shown
from pipelines.codec import Pixels

SIDE = 768  # pixels, at most


def setting(match: Match) -> str:
    """Example: "AVIF at 1/2 size, quality 23"."""
    size = "full size" if match.scale == 1 else f"1/{match.scale} size"
    return f"{TITLES[match.name]} at {size}, quality {match.quality}"


def caption(what: str, result: PictureResult) -> str:
    scores = result.scores
    return (
        f"{what} · {result.bytes:,} bytes · {result.bpp:.4f} bpp · LPIPS {scores.lpips_alex:.3f}"
        f" · DISTS {scores.dists:.3f} · {scores.psnr:.2f} dB"
    )


class Sheet:
    """Files of one picture for the report."""

    def __init__(self, original: Pixels) -> None:
        height, width = original.shape[:2]
        shrink = min(1.0, SIDE / max(height, width))
        self._size = max(1, round(width * shrink)), max(1, round(height * shrink))
        self._files: dict[str, bytes] = {}
        self._captions: dict[str, str] = {}
        self.add("original", original, f"original · {width} x {height} pixels")

    def add(self, name: str, pixels_hwc: Pixels, told: str) -> None:
        image = Image.fromarray(np.ascontiguousarray(pixels_hwc))
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=90, method=4)
        self._files[name], self._captions[name] = file.getvalue(), told

    def shown(self, key: str) -> Shown:
        return Shown(key, self._size[1], self._size[0], self._files, self._captions)
