"""Curves -> one SVG: a metric against bits per pixel, on a logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from archiver.evaluation.metrics import Metric
from archiver.evaluation.report import Curve

WIDTH, HEIGHT = 560, 380  # user units, as all lengths below
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 40, 46


class _Frame:
    """Where values lie on the drawing."""

    def __init__(self, low_bpp: float, high_bpp: float, low: float, high: float) -> None:
        self.low_bpp, self.high_bpp, self.low, self.high = low_bpp, high_bpp, low, high

    def x(self, bpp: float) -> float:
        share = math.log(bpp / self.low_bpp) / math.log(self.high_bpp / self.low_bpp)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def rd_plot(metric: Metric, curves: Sequence[Curve], colours: Mapping[str, str]) -> str:
    """An <svg> element; a curve's elements carry its number among `curves` as data-curve."""
    numbered = [(number, curve) for number, curve in enumerate(curves) if metric.name in curve.values]
    frame = _frame(metric, [curve for _, curve in numbered])
    better = "higher is better" if metric.higher_is_better else "lower is better"
    unit = f", {metric.unit}" if metric.unit else ""
    clip = f"clip-{metric.name}"
    inner = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    return "".join((
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(metric.title)} against bits per pixel">',
        f'<clipPath id="{clip}"><rect {inner}/></clipPath>',
        f'<text class="title" x="{LEFT}" y="18">{escape(metric.title + unit)}</text>',
        f'<text class="tick" x="{WIDTH - RIGHT}" y="18" text-anchor="end">{better}</text>',
        *_grid(frame, metric),
        f'<g clip-path="url(#{clip})">',
        # Published ones first: what was measured lies on top.
        *(
            _drawn(frame, number, curve, metric, colours[curve.name])
            for number, curve in sorted(numbered, key=lambda pair: _ORDER[pair[1].kind])
        ),
        "</g></svg>",
    ))  # fmt: skip


_ORDER = {"published": 0, "conventional": 1, "codec": 2}


def _frame(metric: Metric, curves: Sequence[Curve]) -> _Frame:
    """All that was measured, with room around it; of published curves what lies near."""
    measured = [bpp for curve in curves if curve.kind != "published" for bpp in curve.bpp]
    low_bpp, high_bpp = min(measured) / 1.6, max(measured) * 1.6
    values = [
        value
        for curve in curves
        for bpp, value in zip(curve.bpp, curve.values[metric.name], strict=True)
        if low_bpp <= bpp <= high_bpp
    ]
    margin = 0.06 * (max(values) - min(values)) or 0.5
    return _Frame(low_bpp, high_bpp, min(values) - margin, max(values) + margin)


def _grid(frame: _Frame, metric: Metric) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for bpp in _rate_ticks(frame.low_bpp, frame.high_bpp):
        x = f"{frame.x(bpp):.1f}"
        parts.append(f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{bpp:g}</text>')
    step = _step((frame.high - frame.low) / 5)
    value = math.ceil(frame.low / step) * step
    while value <= frame.high:
        y = f"{frame.y(value):.1f}"
        places = max(0, -math.floor(math.log10(step)))
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{value:.{places}f}</text>'
        )
        value += step
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="tick" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">bits per pixel, logarithmic</text>'
    )
    return parts


def _rate_ticks(low: float, high: float) -> list[float]:
    """Example: _rate_ticks(0.008, 0.3) -> [0.01, 0.02, 0.05, 0.1, 0.2]"""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [round(digit * 10.0**decade, 12) for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def _step(about: float) -> float:
    """Example: _step(0.07) -> 0.05; _step(1.3) -> 1.0"""
    decade = 10.0 ** math.floor(math.log10(about))
    return max(digit * decade for digit in (1, 2, 5) if digit * decade <= about * 1.0001)


def _drawn(frame: _Frame, number: int, curve: Curve, metric: Metric, colour: str) -> str:
    values = curve.values[metric.name]
    places = [(frame.x(bpp), frame.y(value)) for bpp, value in zip(curve.bpp, values, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<g class="curve {curve.kind}" data-curve="{number}" style="--c:{colour}"><polyline points="{line}"/>'
    ]
    for (x, y), bpp, value, point in zip(places, curve.bpp, values, curve.points, strict=True):
        told = f"{curve.name}, {point}: {bpp:.4f} bpp, {metric.title} {value:.{metric.places}f}"
        parts.append(f"{_marker(curve, x, y)}<title>{escape(told)}</title></{_tag(curve)}>")
    return "".join((*parts, "</g>"))


def _marker(curve: Curve, x: float, y: float) -> str:
    """Opened, for a title: discs are codecs, squares conventional ones, rings published ones."""
    if curve.kind == "conventional":
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7">'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if curve.kind == "codec" else 3}">'


def _tag(curve: Curve) -> str:
    return "rect" if curve.kind == "conventional" else "circle"
