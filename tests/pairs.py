"""Pairs of pictures for which tests/archiver/perception/reference.json holds the numbers of the public packages."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipelines.codec import Pixels
from tests.samples import noise, photo, text


def _soft() -> tuple[Pixels, Pixels]:
    original = photo(176, 209)
    small = Image.fromarray(original).resize((52, 44), Image.Resampling.BOX)
    return original, np.asarray(small.resize((209, 176), Image.Resampling.NEAREST))


def _noisy() -> tuple[Pixels, Pixels]:
    original = photo(192, 256)
    levels = original.astype(np.int32) + noise(192, 256) // 8 - 16
    return original, np.clip(levels, 0, 255).astype(np.uint8)


def _blank() -> tuple[Pixels, Pixels]:
    original = text(180, 200)
    return original, np.full_like(original, 250)


def _inverted() -> tuple[Pixels, Pixels]:
    """The smallest: 64 pixels a side."""
    original = photo(64, 71)
    return original, 255 - original


PAIRS: dict[str, Callable[[], tuple[Pixels, Pixels]]] = {
    "soft": _soft,
    "noisy": _noisy,
    "blank": _blank,
    "inverted": _inverted,
}
