from pathlib import Path

import numpy as np
import pytest

from archiver.codecs.sprdiff_shape import BRANCHES
from archiver.evaluation.metrics import Scores
from pipelines.codec import Pixels
from tests.measure.sprdiff_ablation import COARSE, WHOLE, WITHOUT, at, curves_of, load_rates, table
from tests.samples import photo
from tests.tiny_sprdiff import tiny_weights


def scores(psnr: float) -> Scores:
    return Scores(psnr, 0.5, 0.5, 0.5, 0.5)


def distance(original: Pixels, decoded: Pixels) -> Scores:
    return scores(float(np.abs(original.astype(int) - decoded).mean()))


def test_a_curve_is_read_between_its_rates_and_not_beyond() -> None:
    curve = [(0.01, scores(20)), (0.04, scores(24))]
    assert at(curve, 0.02, "psnr") == pytest.approx(22)
    assert at(curve, 0.01, "psnr") == 20
    assert at(curve, 0.009, "psnr") is None
    assert at(curve, 0.041, "psnr") is None


def test_each_branch_gets_a_line_at_each_rate(tmp_path: Path) -> None:
    codecs = load_rates(list(tiny_weights(tmp_path).values()))
    assert [codec.rate for codec in codecs] == [0, 1, 2]
    curves = curves_of(codecs, [photo(400, 500), photo(390, 470)], distance)
    assert set(curves) == {WHOLE, COARSE, *WITHOUT.values()}
    assert set(WITHOUT) == set(BRANCHES)
    bits = {name: [bpp for bpp, _ in curve] for name, curve in curves.items()}
    assert bits[WITHOUT["pixel"]] == bits[WITHOUT["meaning"]] == bits[COARSE] == bits[WHOLE]
    assert bits[WITHOUT["distortion"]] != bits[WHOLE]
    lines = table(curves)
    assert len(lines) == 3 * (2 + 1 + 5)
    assert sum(line.startswith(WITHOUT["semantic"]) for line in lines) == 3
