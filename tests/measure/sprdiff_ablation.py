"""What each branch of sprdiff is worth, on pictures that it was not trained on.

python tests/measure/sprdiff_ablation.py SOURCE [--count N] [--weights OWN AUTOENCODER AUTOENCODER-MSE]

One network answers: training left each branch out of one picture in ten, and learned what to put in its place. Such a
network may be a little worse without a branch than one trained without it, and better than one that never missed it.
Without a guidance branch the bits stay the same. Without an encoder's branch they change, so its curve is
interpolated, linearly over the logarithm of the bits, at the bits of the whole codec; `-` where it does not reach
these. Then: final and coarse pictures at each rate. Bits are those of whole bitstreams.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from archiver.codecs.sprdiff import SprdiffCodec, load_sprdiff
from archiver.codecs.sprdiff_shape import BRANCHES
from archiver.evaluation.metrics import METRICS, SHORTEST_SIDE, Measure, Scores, load_measure
from archiver.presets import PRESETS
from archiver.weights import shipped_weights
from manifests.records import CodecSpec
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image

WHOLE, COARSE = "final picture", "coarse picture"
WITHOUT = {
    "distortion": "without the distortion-oriented encoder",
    "semantic": "without the semantic-oriented encoder",
    "pixel": "without pixel-level guidance",
    "meaning": "without semantic-level guidance",
}
Curve = list[tuple[float, Scores]]  # bits a pixel and mean scores, by rate


def sample(source: Path, count: int) -> list[Pixels]:
    """At most `count` pictures of a folder that all metrics can judge: every n-th by name, n their number // count."""
    files = sorted(file for file in source.iterdir() if file.suffix in (".avif", ".png", ".jpg"))
    found = (read_image(file.read_bytes()).pixels_hwc for file in files[:: max(1, len(files) // count)])
    return [pixels for pixels in found if min(pixels.shape[:2]) >= SHORTEST_SIDE][:count]


def load_rates(own: Sequence[Path]) -> list[SprdiffCodec]:
    """The codec at each of its rates, lowest first; with the shipped weights where no files are named."""
    weights: Mapping[str, Path] = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in own}
    names = tuple(weights)
    if not own:
        weights = shipped_weights()
        names = next(preset.spec.weights for preset in PRESETS if preset.spec.name == "sprdiff")
    first = load_sprdiff(CodecSpec("sprdiff", 1, {"rate": 0}, names), weights, "cpu")
    return [
        replace(first, rate=rate, spec=replace(first.spec, params={"rate": rate}))
        for rate in range(first.network.shape.rates)
    ]


def curves_of(
    codecs: Sequence[SprdiffCodec], pictures: Sequence[Pixels], measure: Measure
) -> dict[str, Curve]:
    """By name: the final picture, the coarse one, and the final one without each branch."""
    found: dict[str, list[list[tuple[float, Scores]]]] = {}
    for pixels in pictures:
        for place, codec in enumerate(codecs):
            variants = {WHOLE: codec} | {
                WITHOUT[name]: replace(codec, left_out=frozenset({name})) for name in BRANCHES
            }
            for name, variant in variants.items():
                (encoded,) = variant.encode([Picture(pixels, None)])
                bpp = 8 * len(encoded.bitstream) / (encoded.height * encoded.width)
                rows = found.setdefault(name, [[] for _ in codecs])
                rows[place].append((bpp, measure(pixels, variant.decode([encoded])[0])))
                if name == WHOLE:
                    rows = found.setdefault(COARSE, [[] for _ in codecs])
                    rows[place].append((bpp, measure(pixels, codec.decode_coarse([encoded])[0])))
    return {name: [_mean(row) for row in rows] for name, rows in found.items()}


def _mean(row: Sequence[tuple[float, Scores]]) -> tuple[float, Scores]:
    fields = {name: float(np.mean([getattr(scores, name) for _, scores in row])) for name in vars(row[0][1])}
    return float(np.mean([bpp for bpp, _ in row])), Scores(**fields)


def at(curve: Curve, bpp: float, metric: str) -> float | None:
    """A curve's score at some bits; None beyond its ends."""
    points = sorted((found, float(getattr(scores, metric))) for found, scores in curve)
    if not points[0][0] * (1 - 1e-9) <= bpp <= points[-1][0] * (1 + 1e-9):
        return None
    rates, values = zip(*points, strict=True)
    return float(np.interp(np.log(bpp), np.log(rates), values))


def table(curves: Mapping[str, Curve]) -> list[str]:
    """At each rate: the scores of the whole codec, and how those of the others differ at equal bits."""
    heads = [metric.title for metric in METRICS]
    lines = []
    for bpp, scores in curves[WHOLE]:
        lines += ["", f"{bpp:.4f} bits a pixel".ljust(42) + "".join(f"{head:>16}" for head in heads)]
        lines.append(
            f"{WHOLE:42}" + "".join(f"{scores.of(metric):16.{metric.places}f}" for metric in METRICS)
        )
        for name, curve in curves.items():
            if name == WHOLE:
                continue
            cells = []
            for metric in METRICS:
                there = at(curve, bpp, metric.name)
                cells.append("-" if there is None else f"{there - scores.of(metric):+.{metric.places}f}")
            lines.append(f"{name:42}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("source", type=Path)
    arguments.add_argument("--count", type=int, default=24, help="pictures at most")
    arguments.add_argument("--weights", type=Path, nargs=3, default=[], help="in place of the shipped ones")
    given = arguments.parse_args()
    pictures = sample(given.source, given.count)
    print(
        f"{len(pictures)} pictures; means of pictures, and differences from the final picture at equal bits"
    )
    print(*table(curves_of(load_rates(given.weights), pictures, load_measure())), sep="\n")


if __name__ == "__main__":
    main()
