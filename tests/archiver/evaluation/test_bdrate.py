import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from archiver.evaluation.bdrate import bd_rate, pchip

RATES = [0.01, 0.02, 0.05, 0.1]
LPIPS = [0.5, 0.41, 0.3, 0.24]
PSNR = [22.0, 23.1, 24.9, 26.5]


def test_half_the_bits_at_every_quality_are_minus_50_percent() -> None:
    for quality in (LPIPS, PSNR):
        found = bd_rate(RATES, quality, [rate / 2 for rate in RATES], quality)
        assert found is not None
        assert found.percent == pytest.approx(-50, abs=1e-9)
        assert found.share == pytest.approx(1)


def test_a_straight_case_worked_out_by_hand() -> None:
    # log2 of the anchor's rate goes 0..2 over qualities 0..2, the other's -1..0 over 1..2: apart by 2 throughout.
    found = bd_rate([1, 2, 4], [0, 1, 2], [0.5, 1.0], [1, 2])
    assert found is not None
    assert found.percent == pytest.approx(-75)
    assert (found.low, found.high, found.share) == (1, 2, 1)


def test_only_the_shared_range_counts() -> None:
    """Of the other curve's end, at qualities that the anchor does not reach, its last tangent alone counts."""
    mild = bd_rate(RATES, PSNR, [0.01, 0.04, 0.09, 0.2], [22.5, 24.0, 26.5, 28.0])
    wild = bd_rate(RATES, PSNR, [0.01, 0.04, 0.09, 9.9], [22.5, 24.0, 26.5, 28.0])
    assert mild is not None
    assert wild is not None
    assert (mild.low, mild.high) == (22.5, 26.5)
    assert wild.percent == pytest.approx(mild.percent, abs=6)


def test_curves_that_share_no_quality_have_no_bd_rate() -> None:
    assert bd_rate(RATES, PSNR, RATES, [value + 10 for value in PSNR]) is None


def test_curves_that_share_hardly_any_quality_have_no_bd_rate() -> None:
    assert bd_rate(RATES, PSNR, RATES, [value + 4.2 for value in PSNR]) is None


def test_a_quality_that_rises_and_one_that_falls_are_not_compared() -> None:
    with pytest.raises(ValueError, match="the same of both"):
        bd_rate(RATES, PSNR, RATES, PSNR[::-1])


@pytest.mark.parametrize("quality", [[22.0, 24.0, 23.0, 26.0], [22.0, 22.0, 23.0, 24.0]])
def test_a_curve_that_turns_back_is_refused(quality: list[float]) -> None:
    with pytest.raises(ValueError, match="rise or to fall"):
        bd_rate(RATES, PSNR, RATES, quality)


def test_one_point_is_no_curve() -> None:
    with pytest.raises(ValueError, match="two or more"):
        bd_rate(RATES, PSNR, [0.1], [22])


def test_the_interpolant_is_scipys_pchip() -> None:
    numbers = np.random.default_rng(3)
    for count in (2, 3, 4, 9):
        x = np.cumsum(numbers.uniform(0.1, 2, count))
        for y in (np.cumsum(numbers.uniform(0, 3, count)), numbers.uniform(-1, 1, count)):
            at = np.linspace(x[0], x[-1], 101)
            assert np.allclose(pchip(x, y, at), PchipInterpolator(x, y)(at), atol=1e-12)
