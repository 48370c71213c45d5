import json
from pathlib import Path

import numpy as np
import pytest

from archiver.evaluation.metrics import (
    METRICS,
    Scores,
    load_lpips_alex,
    load_measure,
    mean_scores,
    ms_ssim,
    psnr,
)
from tests.pairs import PAIRS
from tests.samples import photo

REFERENCE: dict[str, dict[str, float]] = json.loads(
    (Path(__file__).parents[1] / "perception" / "reference.json").read_text()
)


@pytest.mark.parametrize("pair", [name for name in PAIRS if "ms_ssim" in REFERENCE[name]])
def test_ms_ssim_is_that_of_the_public_package(pair: str) -> None:
    assert ms_ssim(*PAIRS[pair]()) == pytest.approx(REFERENCE[pair]["ms_ssim"], abs=1e-5)


def test_ms_ssim_of_a_small_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="160 x 300 pixels"):
        ms_ssim(photo(300, 160), photo(300, 160))


def test_psnr_worked_out_by_hand() -> None:
    original = np.full((4, 4, 3), 100, np.uint8)
    decoded = original.copy()
    decoded[..., 0] += 3  # mean square error 9 / 3
    assert psnr(original, decoded) == pytest.approx(10 * np.log10(255**2 / 3))
    assert psnr(original, original) == 100


def test_pictures_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(photo(4, 5), photo(5, 4))


def test_all_scores_at_once_are_those_of_the_packages() -> None:
    original, decoded = PAIRS["noisy"]()
    scores = load_measure()(original, decoded)
    for name, expected in REFERENCE["noisy"].items():
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-4)
    assert load_lpips_alex()(original, decoded) == pytest.approx(scores.lpips_alex, abs=1e-5)
    assert [scores.of(metric) for metric in METRICS] == [getattr(scores, metric.name) for metric in METRICS]


@pytest.mark.parametrize(("height", "width"), [(500, 263), (262, 471)])
def test_a_picture_in_tiles_has_the_distances_of_the_whole(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, decoded = (np.tile(side, (3, 3, 1))[:height, :width].copy() for side in PAIRS["noisy"]())
    original[: height // 2] //= 2  # no tile is as another
    whole = load_measure()(original, decoded)
    monkeypatch.setattr("archiver.evaluation.tiled.WHOLE", 1)
    monkeypatch.setattr("archiver.evaluation.tiled.TILE", 200)
    tiled = load_measure()(original, decoded)
    assert vars(tiled) == pytest.approx(vars(whole), abs=1e-6)


def test_means_are_field_by_field() -> None:
    found = mean_scores([Scores(20, 0.5, 0.1, 0.2, 0.3), Scores(30, 0.75, 0.3, 0.4, 0.5)])
    assert list(vars(found).values()) == pytest.approx([25, 0.625, 0.2, 0.3, 0.4])


def test_keeping_features_of_an_original_changes_nothing() -> None:
    first, second = PAIRS["soft"](), PAIRS["noisy"]()
    small = (first[0][:176, :209], second[0][:176, :209])
    distance = load_lpips_alex()
    alone = [load_lpips_alex()(small[0], small[1]), load_lpips_alex()(small[1], small[0])]
    assert [distance(small[0], small[0]), distance(small[0], small[1]), distance(small[1], small[0])] == [
        0,
        *alone,
    ]
