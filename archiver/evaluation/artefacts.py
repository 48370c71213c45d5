"""An original and its reconstruction -> how visible a decoder's typical faults are, each as one number.

grid      a pattern that repeats at a stride of the network (2, 4, 8, 16 pixels): its amplitude, in levels
colour    shift of the mean colour, in levels
seam      a straight step at a tile's edge: its height, in levels
border    error near the picture's border over that further inside, each against the detail there was to lose
blow_up   share of the worst 16 x 16 square that ran into black or white where the original did neither

Each compares with the original, so what the picture itself repeats, cuts or burns out counts for nothing. LIMITS stand
above what AVIF at 0.01 to 0.3 bits per pixel gives on the 24 Kodak pictures and 60 other photographs, but for two of
the 504 (a framed drawing's seam of 5.0, a colour of 4.4 at 0.01 bits per pixel), and below what is seen at a glance;
tests/measure/artefacts.py prints the largest of each.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.codec import Pixels

Plane = NDArray[np.float64]  # (H, W), levels 0..255

STRIDES = (2, 4, 8, 16)  # pixels
BLOCK = 16  # pixels a side


@dataclass(frozen=True)
class Artefacts:
    """Of one picture; 0 where the picture is too small to tell."""

    grid: float
    colour: float
    seam: float
    border: float
    blow_up: float


LIMITS = Artefacts(grid=0.5, colour=3.0, seam=4.0, border=1.5, blow_up=0.3)


def artefacts(original: Pixels, decoded: Pixels) -> Artefacts:
    if original.shape != decoded.shape:
        raise ValueError(f"pictures of shapes {original.shape} and {decoded.shape}, expected equal ones")
    first, second = _luma(original), _luma(decoded)
    return Artefacts(
        grid_amplitude(first, second),
        colour_shift(original, decoded),
        seam_height(first, second),
        border_ratio(first, second),
        blown_up(original, decoded),
    )


def exceeded(found: Artefacts) -> list[str]:
    """The names of those above their limit."""
    return [name for name, limit in vars(LIMITS).items() if getattr(found, name) > limit]


def _luma(pixels_hwc: Pixels) -> Plane:
    return np.asarray(pixels_hwc.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def grid_amplitude(original: Plane, decoded: Plane) -> float:
    """Amplitude, in levels, of the strongest wave at a stride's frequency that the original has not.

    Per axis, the mean power spectrum of all lines; at the frequencies k / 16, k = 1..8, what stands out above the
    bins around it and above the original's, as the amplitude of a wave.
    """
    strongest = 0.0
    for axis in (0, 1):
        length = decoded.shape[axis] // max(STRIDES) * max(STRIDES)
        if length < 8 * max(STRIDES):
            continue
        strongest = max(strongest, _wave(_spectrum(original, axis, length), _spectrum(decoded, axis, length)))
    return strongest


def _spectrum(plane: Plane, axis: int, length: int) -> Plane:
    """Mean power of the lines' differences, by frequency: a photograph's own slope would leak into every bin."""
    lines = np.moveaxis(plane, axis, -1)[..., :length]
    steps = np.diff(lines, axis=-1, append=lines[..., -1:])
    return np.asarray(np.mean(np.abs(np.fft.rfft(steps, axis=-1)) ** 2, axis=0) / length**2)


def _wave(before: Plane, after: Plane) -> float:
    """The strongest amplitude at k / 16 of the sampling rate, k = 1..8."""
    amplitudes = []
    for k in range(1, max(STRIDES) // 2 + 1):
        place = k * 2 * (len(after) - 1) // max(STRIDES)
        near = np.r_[
            after[place - 6 : place - 1], after[place + 2 : place + 7], before[place - 1 : place + 2]
        ]
        gain = 2 * np.sin(np.pi * k / max(STRIDES))  # of the differences, at this frequency
        # A wave a cos has the power a^2 / 4 in its bin; at half the sampling rate, a^2.
        whole = 4 if k < max(STRIDES) // 2 else 1
        amplitudes.append(np.sqrt(whole * max(0.0, float(after[place] - near.max()))) / gain)
    return float(max(amplitudes))


def colour_shift(original: Pixels, decoded: Pixels) -> float:
    """Largest change of the mean of R, G or B, in levels."""
    difference = decoded.mean((0, 1), dtype=np.float64) - original.mean((0, 1), dtype=np.float64)
    return float(np.abs(difference).max())


def seam_height(original: Plane, decoded: Plane) -> float:
    """Height, in levels, of the most conspicuous straight step across or down the picture that the original has not.

    Two measures of a step between two lines side by side, each a median along the line (tiles meet along the whole
    picture): of the error's change, which sees a change of brightness through any texture, and of the absolute
    change, which sees textures that do not meet. A step counts as far as it exceeds those next to it, less what the
    original's own steps, up to 8 lines away, exceed those around them.
    """
    highest = 0.0
    if min(decoded.shape) < 64:
        return highest
    for axis in (0, 1):
        before, after = (np.diff(np.moveaxis(plane, axis, -1), axis=-1) for plane in (original, decoded))
        brightness = np.abs(np.median(after - before, axis=0)), np.abs(np.median(before, axis=0))
        texture = np.median(np.abs(after), axis=0), np.median(np.abs(before), axis=0)
        for found, own in (brightness, texture):
            standing = found - _windowed(found, (-2, -1, 1, 2)).max(axis=0) - _excess(own)
            highest = max(highest, float(standing[8:-8].max()))
    return highest


def _excess(profile: Plane) -> Plane:
    """How far the largest step within 8 lines exceeds the ordinary one within 16."""
    return np.asarray(
        _windowed(profile, range(-8, 9)).max(axis=0) - np.median(_windowed(profile, range(-16, 17)), axis=0)
    )


def _windowed(profile: Plane, shifts: Iterable[int]) -> Plane:
    """(shift, place): the profile shifted, mirrored at its ends."""
    padded = np.pad(profile, 16, mode="reflect")
    return np.stack([padded[16 + shift : 16 + shift + len(profile)] for shift in shifts])


def border_ratio(original: Plane, decoded: Plane) -> float:
    """Error within 16 pixels of the border over that 32 to 80 pixels inside, each against what there was to lose.

    Errors are RMS; what there was to lose is the original's RMS difference from the means of its 16 x 16 squares
    (Kodak's pictures have dark lines at their borders); 4 levels are added to each.
    """
    height, width = (side // BLOCK * BLOCK for side in decoded.shape)
    if min(height, width) < 12 * BLOCK:
        return 0.0
    squares = original[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    detail = ((squares - squares.mean(axis=(1, 3), keepdims=True)) ** 2).mean(axis=(1, 3))
    error = ((decoded - original)[:height, :width] ** 2).reshape(squares.shape).mean(axis=(1, 3))
    rows, columns = np.ogrid[: height // BLOCK, : width // BLOCK]
    depth = np.minimum(
        np.minimum(rows, height // BLOCK - 1 - rows), np.minimum(columns, width // BLOCK - 1 - columns)
    )
    outer, inner = (
        (np.sqrt(error[ring].mean()) + 4) / (np.sqrt(detail[ring].mean()) + 4)
        for ring in (depth == 0, (depth >= 2) & (depth <= 4))
    )
    return float(outer / inner)


def blown_up(original: Pixels, decoded: Pixels) -> float:
    """Share of pixels, in the worst square of 16 x 16, where a colour is 0 or 255 and over 64 levels off."""
    height, width = (side // BLOCK * BLOCK for side in decoded.shape[:2])
    if not height or not width:
        return 0.0
    burnt = (decoded == 0) | (decoded == 255)
    far = np.abs(decoded.astype(np.int16) - original) > 64
    bad = (burnt & far).any(axis=-1)[:height, :width]
    squares = bad.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return float(squares.mean(axis=(1, 3)).max())
