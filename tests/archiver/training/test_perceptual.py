"""DISTS of windows seen one after another, as if they were one picture."""

import pytest
import torch

from archiver.perception.dists import DISTS
from archiver.training.perceptual import Mosaic

SEED = 3


def features(windows: int) -> torch.Tensor:
    return torch.rand(windows, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))


def moments(dists: DISTS, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return dists.moments(dists.taps(made), dists.taps(real))


def test_what_windows_lack_in_common_counts_and_what_cancels_does_not() -> None:
    dists = DISTS()
    real = features(2)
    contrast = torch.tensor([1.3, 0.7])[:, None, None, None]
    common, cancelling = moments(dists, 0.7 * real, real), moments(dists, contrast * real, real)
    windows = dists.apart(common).mean(), dists.apart(cancelling).mean()
    together = Mosaic(1)(dists, common, 0), Mosaic(1)(dists, cancelling, 0)
    assert together[1] / windows[1] < 0.8 < together[0] / windows[0]


def test_batches_join_those_of_their_kind_alone() -> None:
    dists = DISTS()
    real = features(1)
    dark, bright = (moments(dists, factor * real, real) for factor in (0.7, 1.3))
    mosaic = Mosaic(2)
    first = mosaic(dists, dark, 0)
    other = mosaic(dists, bright, 1)
    assert mosaic(dists, bright, 0) < 0.9 * min(first, other)
    assert mosaic(dists, bright, 1) == pytest.approx(float(other), rel=1e-4)


def test_a_batch_that_is_not_finite_is_not_remembered() -> None:
    dists = DISTS()
    real = features(1)
    mosaic = Mosaic(1)
    before = mosaic(dists, moments(dists, 0.8 * real, real), 0)
    assert not mosaic(dists, moments(dists, torch.nan * real, real), 0).isfinite()
    after = mosaic(dists, moments(dists, 0.8 * real, real), 0)
    assert after == pytest.approx(float(before), rel=1e-4)


def test_the_slope_is_that_of_a_batch_alone() -> None:
    dists = DISTS()
    real = features(1)
    mosaic = Mosaic(1)
    for _ in range(5):
        made = (0.8 * real).requires_grad_()
        mosaic(dists, moments(dists, made, real), 0).backward()
    alone = (0.8 * real).requires_grad_()
    dists.apart(moments(dists, alone, real)).sum().backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert alone.grad is not None
    torch.testing.assert_close(made.grad, alone.grad, rtol=1e-3, atol=1e-8)
