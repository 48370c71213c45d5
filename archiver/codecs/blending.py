"""Pictures drawn in overlapping pieces that are joined by weighted means: for networks that see far."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from archiver.codecs.sprdiff_shape import CELL

BLEND, OVERLAP = 768, 192  # pixels a side that are drawn at once, and that neighbours share


@dataclass(frozen=True)
class Area:
    """Pixels top … bottom, left … right, on whole cells."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, x: Tensor, step: int) -> Tensor:
        """This part of a tensor (…, rows, columns) with one for each `step` pixels a side."""
        return x[..., self.top // step : self.bottom // step, self.left // step : self.right // step]


def blended(height: int, width: int, step: int, draw: Callable[[Area], Tensor]) -> Tensor:
    """What `draw` makes of areas that overlap, (1, C, …) with one for each `step` pixels, joined by weighted means."""
    rows, columns = spans(height), spans(width)
    parts = [(Area(*vertical, *across), vertical, across) for vertical in rows for across in columns]
    if len(parts) == 1:
        return draw(parts[0][0])
    total = weight = torch.zeros(())
    for area, vertical, across in parts:
        made = draw(area)
        share = _ramp(made.shape[2])[:, None] * _ramp(made.shape[3])[None]
        if not total.dim():
            total = made.new_zeros(1, made.shape[1], height // step, width // step)
            weight = torch.zeros_like(total[:, :1])
        place = (..., slice(*(edge // step for edge in vertical)), slice(*(edge // step for edge in across)))
        total[place] += made * share.to(made)
        weight[place] += share.to(made)
    return total / weight


def spans(size: int) -> list[tuple[int, int]]:
    """Pieces of up to BLEND pixels that cover a side, evenly, with at least OVERLAP in common."""
    if size <= BLEND:
        return [(0, size)]
    count = -(-(size - OVERLAP) // (BLEND - OVERLAP))
    starts = [round(place * (size - BLEND) / (count - 1) / CELL) * CELL for place in range(count)]
    return [(start, start + BLEND) for start in starts]


def _ramp(count: int) -> Tensor:
    """Weights that rise from both ends."""
    place = torch.arange(count) + 0.5
    return torch.minimum(place, count - place)
