"""Deep distances of pictures of any size, in the memory of one tile.

LPIPS and DISTS are made of means over all positions of feature maps. A tile, with as much around it as its features
see, gives what its positions add to these means; what it gives is what the whole picture would, but for rounding.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.codec import Pixels

WHOLE = 1 << 20  # pixels: pictures up to here are one tile
TILE = 768  # pixels a side, about
BEYOND = 128  # pixels around a tile: more than VGG-16's last features see to each side
STRIDE = 16  # pixels: tiles begin at multiples of the coarsest features' stride


class Network(Protocol):
    """LPIPS or DISTS."""

    strides: tuple[int, ...]  # of the feature maps, pixels

    def taps(self, x: Tensor) -> list[Tensor]: ...

    def means(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]: ...

    def of_means(self, means: list[Tensor]) -> Tensor: ...


def tiled_distance(network: Network, first: Pixels, second: Pixels, gain: float, shift: float) -> float:
    """Between pictures of one shape; the network takes pixels in shift..gain + shift."""
    height, width = first.shape[:2]
    counts = torch.zeros(len(network.strides), dtype=torch.float64)
    totals: list[Tensor] = []
    for rows in _cuts(height):
        for columns in _cuts(width):
            (top, low), (left, right) = rows.around, columns.around
            pair = [_prepared(pixels[top:low, left:right], gain, shift) for pixels in (first, second)]
            taps = [
                [
                    tap[:, :, rows.own(stride), columns.own(stride)]
                    for stride, tap in zip(network.strides, network.taps(one), strict=True)
                ]
                for one in pair
            ]
            found = [mean.double() for mean in network.means(*taps)]
            share = torch.tensor([tap.shape[2] * tap.shape[3] for tap in taps[0]], dtype=torch.float64)
            more = [mean * count for mean, count in zip(found, share, strict=True)]
            totals = [a + b for a, b in zip(totals, more, strict=True)] if totals else more
            counts += share
    return float(network.of_means([total / count for total, count in zip(totals, counts, strict=True)]))


def _prepared(pixels_hwc: Pixels, gain: float, shift: float) -> Tensor:
    return gain * (torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None] / 255) + shift


class _Cut:
    """Rows or columns first..end (end not included) of `side`, and what lies around them."""

    def __init__(self, first: int, end: int, side: int) -> None:
        self._first, self._end, self._last = first, end, end == side
        self.around = max(0, first - BEYOND), min(side, end + BEYOND)

    def own(self, stride: int) -> slice:
        """Those of the features of `around` that are of first..end."""
        begin = (self._first - self.around[0]) // stride
        return slice(begin, None if self._last else begin + (self._end - self._first) // stride)


def _cuts(side: int) -> Iterator[_Cut]:
    """About TILE long, and of about one length."""
    count = -(-side // TILE)
    edges = [side * place // count // STRIDE * STRIDE for place in range(count)] + [side]
    for first, end in pairwise(edges):
        yield _Cut(first, end, side)
