"""The mean colours of large squares of a picture <-> symbols of a range coder: a generator's own colours drift.

A tint is G, R - G and B - G of a square of SIDE x SIDE pixels, in steps of STEP levels, R and B against the G that the
decoder knows: each colour is at most half a step off. What is coded is its distance from the tint to the left (at the
left edge, above), with counts that fall with that distance's square.
"""

import constriction
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from archiver.codecs.label_maps import TOTAL
from pipelines.codec import Pixels

# Legend of suffixes: a, b squares down and across; P the three planes of a tint.

SIDE = 256  # pixels; squares at the right and lower edge may be smaller
STEP = 4  # levels
FARTHEST = 2 * 255 // STEP + 1  # steps from one tint to another
WIDTHS = ((20, 6, 6), (8, 3, 3))  # steps, of the distances of a picture's first tint, and of all others
GREY = 32  # G of the tint before the first, in steps


def tints_of(pixels_hwc: Pixels) -> NDArray[np.int16]:
    """(a, b, P) of a picture of whole cells."""
    means = np.asarray(Image.fromarray(pixels_hwc).reduce(SIDE)).astype(np.int16)
    red, green, blue = means[..., 0], means[..., 1], means[..., 2]
    steps = (green + STEP // 2) // STEP
    others = [(other - steps * STEP + STEP // 2) // STEP for other in (red, blue)]
    made: NDArray[np.int16] = np.stack((steps, *others), -1)
    return made


def colours_of(tints_abp: NDArray[np.int16]) -> NDArray[np.float32]:
    """Inverse of `tints_of`, within STEP / 2 levels: (a, b, 3), R, G, B."""
    green = tints_abp[..., 0]
    return (
        np.stack((green + tints_abp[..., 1], green, green + tints_abp[..., 2]), -1).astype(np.float32) * STEP
    )


def encode_tints(encoder: constriction.stream.queue.RangeEncoder, tints_abp: NDArray[np.int16]) -> None:
    """Adds tints to what an encoder holds."""
    for a, b in np.ndindex(tints_abp.shape[:2]):
        for tint, before, model in zip(tints_abp[a, b], _before(tints_abp, a, b), _models(a, b), strict=True):
            encoder.encode(int(tint - before) + FARTHEST, model)


def decode_tints(
    decoder: constriction.stream.queue.RangeDecoder, height: int, width: int
) -> NDArray[np.int16]:
    """Inverse of `encode_tints`, of a picture of height x width pixels."""
    tints_abp = np.zeros((-(-height // SIDE), -(-width // SIDE), 3), dtype=np.int16)
    for a, b in np.ndindex(tints_abp.shape[:2]):
        near, models = _before(tints_abp, a, b), _models(a, b)
        tint = [int(n) + decoder.decode(model) - FARTHEST for n, model in zip(near, models, strict=True)]
        if max(map(abs, tint)) > FARTHEST:
            raise ValueError(f"a bitstream with the tint {tint}, expected -{FARTHEST} to {FARTHEST}")
        tints_abp[a, b] = tint
    return tints_abp


def _before(tints_abp: NDArray[np.int16], a: int, b: int) -> NDArray[np.int16]:
    """The tint that one is coded from."""
    if not a and not b:
        return np.array((GREY, 0, 0), dtype=np.int16)
    near: NDArray[np.int16] = tints_abp[a, b - 1] if b else tints_abp[a - 1, b]
    return near


def _models(a: int, b: int) -> list[constriction.stream.model.Categorical]:
    # Division by a power of two is exact: all machines make the same models of the same counts.
    return [
        constriction.stream.model.Categorical(counts_of(width) / TOTAL, perfect=False)
        for width in WIDTHS[bool(a or b)]
    ]


def counts_of(width: int) -> NDArray[np.int64]:
    """How likely distances of -FARTHEST … FARTHEST are, out of TOTAL: by a Cauchy distribution, in whole numbers."""
    squares = np.arange(-FARTHEST, FARTHEST + 1, dtype=np.int64) ** 2
    odds = (TOTAL * width * width) // (width * width + squares) + 1
    counts = 1 + odds * (TOTAL - len(odds)) // int(odds.sum())
    counts[FARTHEST] += TOTAL - int(counts.sum())
    made: NDArray[np.int64] = counts
    return made
