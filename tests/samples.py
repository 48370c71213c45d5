"""Small pictures of every kind that a codec has to live with, the same in every run."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from pipelines.codec import Pixels

SIZES = [(1, 1), (1, 2), (1, 97), (97, 1), (2, 2), (17, 31), (64, 64), (3, 500), (480, 640)]  # height, width


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def black(height: int, width: int) -> Pixels:
    return np.zeros((height, width, 3), dtype=np.uint8)


def saturated(height: int, width: int) -> Pixels:
    """Red above blue."""
    pixels_hwc = black(height, width)
    pixels_hwc[: height // 2, :, 0] = 255
    pixels_hwc[height // 2 :, :, 2] = 255
    return pixels_hwc


def checkerboard(height: int, width: int) -> Pixels:
    rows, columns = np.indices((height, width))
    squares = ((rows + columns) % 2 * 255).astype(np.uint8)
    return np.stack([squares] * 3, axis=-1)


def text(height: int, width: int) -> Pixels:
    image = Image.new("RGB", (width, height), "white")
    for place, line in enumerate(("The quick brown fox", "jumps over the lazy", "dog, 0123456789.")):
        ImageDraw.Draw(image).text((4, 4 + 12 * place), line, fill="black")
    return np.array(image)


def gradient(height: int, width: int) -> Pixels:
    rows, columns = np.indices((height, width))
    red, green = 255 * rows // max(1, height - 1), 255 * columns // max(1, width - 1)
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


def grey(height: int, width: int) -> Pixels:
    return np.repeat(gradient(height, width)[..., :1], 3, axis=-1)


def photo(height: int, width: int) -> Pixels:
    """A cat, cut out of its middle, or mirrored where it is too small."""
    cat = photograph("chelsea")
    short = (max(0, height - cat.shape[0]), max(0, width - cat.shape[1]))
    cat = np.pad(cat, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    top, left = (cat.shape[0] - height) // 2, (cat.shape[1] - width) // 2
    return np.ascontiguousarray(cat[top : top + height, left : left + width])


KINDS: dict[str, Callable[[int, int], Pixels]] = {
    "noise": noise,
    "black": black,
    "saturated": saturated,
    "checkerboard": checkerboard,
    "text": text,
    "gradient": gradient,
    "grey": grey,
    "photo": photo,
}


def photographs() -> list[Pixels]:
    """Three ordinary photographs: a person, a cat, a cup."""
    return [photograph(name) for name in ("astronaut", "chelsea", "coffee")]


def photograph(name: str) -> Pixels:
    """One of those that scikit-image carries in its wheel."""
    load: Callable[[], Pixels] = getattr(data, name)
    return np.ascontiguousarray(load())
