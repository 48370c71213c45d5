"""Two rate-quality curves -> how many more bits one needs than the other at equal quality (Bjøntegaard).

Each curve is log(bits per pixel) as a function of quality, interpolated by monotone cubic Hermite pieces
(Fritsch and Carlson, with the slopes of Fritsch and Butland: "PCHIP"). The mean distance of the two over the range of
qualities that both reach is the BD-rate; nothing is extrapolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_SHARE = 0.1  # less would say much of little
STEPS = 1000  # of the numeric integral


@dataclass(frozen=True)
class BDRate:
    """Example: percent -30 means 30 % fewer bits than the anchor at equal quality, on average over low..high."""

    percent: float
    low: float  # qualities that both curves reach
    high: float
    share: float  # of the narrower curve's range of qualities that low..high covers


def bd_rate(
    anchor_bpp: Sequence[float], anchor: Sequence[float], bpp: Sequence[float], quality: Sequence[float]
) -> BDRate | None:
    """None where the curves share less than LEAST_SHARE of the narrower one's range of qualities.

    Quality may rise or fall with the rate (PSNR, LPIPS); curves that do not do the same, one of fewer than two
    points, or one that turns back, are a ValueError.
    """
    first, second = _curve(anchor_bpp, anchor), _curve(bpp, quality)
    if (first[1][0] < first[1][-1]) != (second[1][0] < second[1][-1]):
        raise ValueError(
            "one curve's quality rises with the rate and the other's falls, expected the same of both"
        )
    low = max(first[0][0], second[0][0])
    high = min(first[0][-1], second[0][-1])
    narrower = min(float(curve[0][-1] - curve[0][0]) for curve in (first, second))
    if high - low < LEAST_SHARE * narrower:
        return None
    at = np.linspace(low, high, STEPS + 1)
    distance = pchip(*second, at) - pchip(*first, at)
    mean = float(np.sum((distance[1:] + distance[:-1]) / 2) / STEPS)
    return BDRate(100 * float(np.expm1(mean)), float(low), float(high), (float(high) - float(low)) / narrower)


def _curve(bpp: Sequence[float], quality: Sequence[float]) -> tuple[Floats, Floats]:
    """Qualities in ascending order, and the natural logarithms of their rates."""
    if len(bpp) != len(quality) or len(bpp) < 2:
        raise ValueError(f"a curve of {len(bpp)} rates and {len(quality)} qualities, expected two or more")
    rates, values = np.array(bpp, np.float64), np.array(quality, np.float64)
    if rates.min() <= 0:
        raise ValueError(f"rates {sorted(bpp)} bits per pixel, expected all above 0")
    order = np.argsort(rates)
    rates, values = rates[order], values[order]
    steps = np.diff(values)
    if not (np.all(steps > 0) or np.all(steps < 0)) or not np.all(np.diff(rates) > 0):
        raise ValueError(
            f"qualities {values.tolist()} at rising rates, expected them to rise or to fall throughout"
        )
    if steps[0] < 0:
        rates, values = rates[::-1], values[::-1]
    return values, np.log(rates)


def pchip(x: Floats, y: Floats, at: Floats) -> Floats:
    """The monotone cubic interpolant of (x, y), x ascending, at points within its range."""
    widths, slopes = np.diff(x), np.diff(y) / np.diff(x)
    tangents = _tangents(widths, slopes)
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(widths) - 1)
    width, place = widths[piece], at - x[piece]
    left, right, slope = tangents[piece], tangents[piece + 1], slopes[piece]
    square = (3 * slope - 2 * left - right) / width
    cube = (left - 2 * slope + right) / width**2
    return np.asarray(y[piece] + place * (left + place * (square + place * cube)))


def _tangents(widths: Floats, slopes: Floats) -> Floats:
    if len(slopes) == 1:
        return np.array([slopes[0], slopes[0]])
    inner = np.zeros(len(slopes) - 1)
    same = slopes[:-1] * slopes[1:] > 0
    before, after = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    left, right = np.where(same, slopes[:-1], 1.0), np.where(same, slopes[1:], 1.0)
    inner[same] = ((before + after) / (before / left + after / right))[same]
    ends = (
        _end(widths[0], widths[1], slopes[0], slopes[1]),
        _end(widths[-1], widths[-2], slopes[-1], slopes[-2]),
    )
    return np.concatenate([[ends[0]], inner, [ends[1]]])


def _end(width: float, next_width: float, slope: float, next_slope: float) -> float:
    """Three-point formula, kept from turning the curve back."""
    tangent = ((2 * width + next_width) * slope - width * next_slope) / (width + next_width)
    if tangent * slope <= 0:
        return 0.0
    if slope * next_slope <= 0 and abs(tangent) > abs(3 * slope):
        return 3 * slope
    return float(tangent)
