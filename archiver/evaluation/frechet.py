"""Originals and reconstructions -> FID and KID, by the patch protocol (Mentzer et al. 2020).

Each picture is cut into 256 x 256 patches side by side, and again from 128 pixels further down and right. Between the
features of all patches of the originals and all of the reconstructions: FID, the Fréchet distance of the Gaussians
fitted to them; KID, the mean over 100 random subsets of 1,000 of the unbiased squared distance under the kernel
(x · y / 2048 + 1)^3 (it may be negative). With few patches both mean little: Kodak's 24 pictures give 276.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from archiver.evaluation.results import PatchDistance
from pipelines.codec import Pixels

Features = NDArray[np.float64]  # (patches, 2048)
PATCH = 256  # pixels
SUBSETS, SUBSET = 100, 1_000


def patches(pixels_hwc: Pixels) -> Iterator[Pixels]:
    """Those of both grids that lie within the picture."""
    height, width = pixels_hwc.shape[:2]
    for start in (0, PATCH // 2):
        for top in range(start, height - PATCH + 1, PATCH):
            for left in range(start, width - PATCH + 1, PATCH):
                yield pixels_hwc[top : top + PATCH, left : left + PATCH]


def patch_count(height: int, width: int) -> int:
    """How many `patches` a picture has."""
    return sum(
        max(0, (height - start) // PATCH) * max(0, (width - start) // PATCH) for start in (0, PATCH // 2)
    )


def patch_distance(originals: Features, decoded: Features) -> PatchDistance:
    if originals.shape != decoded.shape or len(originals) < 2:
        raise ValueError(
            f"features {originals.shape} and {decoded.shape}, expected equal ones of 2 patches or more"
        )
    return PatchDistance(
        len(originals), frechet_distance(originals, decoded), kernel_distance(originals, decoded)
    )


def frechet_distance(first: Features, second: Features) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)), C the covariances.

    The trace of the root is the sum of the singular values of the product of the centred features, or of their
    triangles (QR), which are no larger than 2048 x 2048: no root of a matrix is taken, and none becomes complex.
    """
    means = first.mean(0), second.mean(0)
    centred = [(x - mean) / np.sqrt(len(x) - 1) for x, mean in zip((first, second), means, strict=True)]
    triangles = [np.asarray(np.linalg.qr(x, mode="r")) for x in centred]
    root = float(np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum())
    spread = sum(float((x**2).sum()) for x in centred)
    return float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * root


def kernel_distance(first: Features, second: Features) -> float:
    numbers = np.random.default_rng(0)
    size = min(SUBSET, len(first))
    found = []
    for _ in range(SUBSETS if size < len(first) else 1):
        x, y = (side[numbers.choice(len(side), size, replace=False)] for side in (first, second))
        within = [float(_kernel(one, one).sum() - np.diag(_kernel(one, one)).sum()) for one in (x, y)]
        found.append(sum(within) / (size * (size - 1)) - 2 * float(_kernel(x, y).mean()))
    return float(np.mean(found))


def _kernel(x: Features, y: Features) -> Features:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


class PatchFeatures:
    """Collects the features of patches, picture by picture."""

    def __init__(self, features: Callable[[list[Pixels]], Features]) -> None:
        self._features = features
        self._found: list[NDArray[np.float32]] = []

    def add(self, pixels_hwc: Pixels) -> None:
        several = list(patches(pixels_hwc))
        if several:
            self._found.append(self._features(several).astype(np.float32))  # as the network gives them

    def all(self) -> Features:
        return np.concatenate(self._found, dtype=np.float64) if self._found else np.zeros((0, 1))
