import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from archiver.evaluation.frechet import (
    frechet_distance,
    kernel_distance,
    patch_count,
    patch_distance,
    patches,
)
from archiver.evaluation.inception import FEATURES, Inception, enlarged
from tests.samples import noise


def features(count: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    mixing = np.random.default_rng(seed + 100).normal(size=(size, size))
    return numbers.normal(size=(count, size)) @ mixing + shift


def test_patches_are_two_grids_apart_by_half_a_patch() -> None:
    pixels_hwc = noise(520, 800)
    found = list(patches(pixels_hwc))
    assert len(found) == 2 * 3 + 1 * 2
    assert np.array_equal(found[1], pixels_hwc[:256, 256:512])
    assert np.array_equal(found[6], pixels_hwc[128:384, 128:384])
    assert patch_count(520, 800) == len(found)
    assert [patch_count(*sides) for sides in ((255, 900), (256, 256), (384, 384))] == [0, 1, 2]


def test_the_frechet_distance_is_that_of_its_formula() -> None:
    first, second = features(60, 8, 1), features(60, 8, 2, shift=0.5)
    covariances = [np.cov(side, rowvar=False) for side in (first, second)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    means = ((first.mean(0) - second.mean(0)) ** 2).sum()
    expected = means + np.trace(covariances[0] + covariances[1]) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_the_frechet_distance_of_many_patches_takes_no_square_of_their_number() -> None:
    first, second = features(30_000, 4, 1), features(30_000, 4, 2)  # 30,000 x 30,000 doubles are 7 GB
    covariances = [np.cov(side, rowvar=False) for side in (first, second)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    means = ((first.mean(0) - second.mean(0)) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(means + np.trace(sum(covariances)) - 2 * root)


def test_the_frechet_distance_of_fewer_patches_than_features() -> None:
    first = features(10, 40, 1)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(first, first + 3) == pytest.approx(9 * 40)


def test_the_kernel_distance_worked_out_by_hand() -> None:
    # One feature; k(x, y) = (xy + 1)^3. Within {0, 1}: k(0, 1) = 1; within {1, 2}: 27; across: 1, 1, 8, 27.
    first, second = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel_distance(first, second) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_samples_of_one_kind_are_near_and_of_two_kinds_far() -> None:
    same = patch_distance(features(400, 6, 1), features(400, 6, 1)[::-1])
    apart = patch_distance(features(400, 6, 1), features(400, 6, 1, shift=2))
    assert same.fid == pytest.approx(0, abs=1e-8)
    assert same.kid < 1e-6
    assert apart.fid == pytest.approx(4 * 6)
    assert apart.kid > 0.1


def test_inception_is_as_large_as_the_published_one() -> None:
    """21,785,568 parameters below the classifier, as in every copy of Inception v3."""
    network = Inception().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_785_568
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8)).shape == (1, FEATURES)


def test_pictures_are_enlarged_without_half_pixel_centres() -> None:
    ramp = torch.arange(256.0).expand(1, 3, 256, 256)
    found = enlarged(ramp)
    assert found.shape == (1, 3, 299, 299)
    assert found[0, 0, 0, :3].tolist() == pytest.approx([0, 256 / 299, 512 / 299])
    assert found[0, 0, 5, 298].item() == 255  # nothing lies beyond the last pixel
