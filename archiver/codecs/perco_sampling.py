"""Noise -> latents: DDIM on a table of noise levels, in tiles where a picture is larger than the UNet's training.

Latents at time t are `signal[t] * latents + sigma[t] * noise`; the UNet gives v = signal * noise - sigma * latents
(Salimans & Ho, ICLR 2022), with classifier-free guidance (Ho & Salimans, 2021). DDIM without noise of its own (Song et
al., ICLR 2021), so that latents follow from the first noise. Tiles overlap; at each step the v of all tiles that see a
cell are averaged, by weights that fall towards a tile's border (after MultiDiffusion, Bar-Tal et al., ICML 2023).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Legend of suffixes: B pictures, T tiles, C channels; h, w cells of the latent.

TIMES = 1000

Corners = list[tuple[int, int]]  # top, left of tiles, in cells
# Noisy latents (T B, C, h, w) of T tiles of B pictures, the tiles' corners, time -> v of the same shape.
Velocity = Callable[[Tensor, Corners, int], Tensor]


@dataclass(frozen=True)
class Tiling:
    """Cells a side that the UNet sees at once, and that neighbours share at least."""

    side: int
    overlap: int


@dataclass(frozen=True)
class Levels:
    """How much of a latent and how much noise there is at times 0 … 999."""

    signal: Tensor  # (TIMES,), falling
    sigma: Tensor
    end: int | None = None  # the time whose noise stays in what is sampled; None: no noise stays

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Latents at times (B,)."""
        return self._at(self.signal, times) * latents + self._at(self.sigma, times) * noise

    def v(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return self._at(self.signal, times) * noise - self._at(self.sigma, times) * latents

    def clean(self, noisy: Tensor, v: Tensor, times: Tensor) -> Tensor:
        """The latents that noisy ones and v mean."""
        return self._at(self.signal, times) * noisy - self._at(self.sigma, times) * v

    def _at(self, values: Tensor, times: Tensor) -> Tensor:
        return values.to(times.device)[times][:, None, None, None]


def cosine_levels() -> Levels:
    """From nearly clean to noise alone (Nichol & Dhariwal, ICML 2021, without their offset)."""
    angle = torch.arange(1, TIMES + 1, dtype=torch.float64) / TIMES * (math.pi / 2)
    signal = torch.cos(angle)
    signal[-1] = 0.0
    return Levels(signal.float(), torch.sin(angle).float())


def scaled_linear_levels() -> Levels:
    """Those of Stable Diffusion: the square root of beta goes linearly from 0.00085 to 0.012, and some signal stays.

    At the end the noise of time 0 stays, 3 %: its decoder is used to that (`set_alpha_to_one` false in its scheduler).
    """
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, TIMES, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - beta, 0)
    return Levels(kept.sqrt().float(), (1 - kept).sqrt().float(), end=0)


LEVELS: dict[str, Callable[[], Levels]] = {"cosine": cosine_levels, "scaled-linear": scaled_linear_levels}


def times_of(steps: int, spacing: str) -> list[int]:
    """Falling times of a number of steps: "trailing" begins at 999, "leading" (Stable Diffusion's) ends at 1."""
    if spacing == "trailing":
        return [round(TIMES - place * TIMES / steps) - 1 for place in range(steps)]
    if spacing == "leading":
        return [place * (TIMES // steps) + 1 for place in reversed(range(steps))]
    raise ValueError(f"spacing {spacing!r}, expected trailing or leading")


def sampled(
    noise: Tensor, velocity: Velocity, levels: Levels, times: Sequence[int], tiling: Tiling
) -> Tensor:
    """Noise (B, C, h, w) -> latents."""
    x, (h, w) = noise, noise.shape[2:]
    side, overlap = tiling.side, tiling.overlap
    corners = [(top, left) for top in starts(h, tiling) for left in starts(w, tiling)]
    weight = (ramp(min(h, side), overlap)[:, None] * ramp(min(w, side), overlap)[None]).to(x.device)
    for time, after in zip(times, [*times[1:], levels.end], strict=True):
        seen = torch.cat([x[:, :, top : top + side, left : left + side] for top, left in corners])
        v = blended(velocity(seen, corners, time), corners, weight, h, w)
        signal, sigma = float(levels.signal[time]), float(levels.sigma[time])
        clean, noisy = signal * x - sigma * v, sigma * x + signal * v
        x = clean
        if after is not None:
            x = float(levels.signal[after]) * clean + float(levels.sigma[after]) * noisy
    return x


def starts(cells: int, tiling: Tiling) -> list[int]:
    """Where tiles begin along a side: evenly, the first at 0, the last one's end at the picture's."""
    if cells <= tiling.side:
        return [0]
    count = -(-(cells - tiling.overlap) // (tiling.side - tiling.overlap))
    return [round(place * (cells - tiling.side) / (count - 1)) for place in range(count)]


def ramp(cells: int, overlap: int) -> Tensor:
    """(cells,): weights that rise from a tile's border over the overlap."""
    place = torch.arange(cells, dtype=torch.float32)
    return torch.minimum(place + 1, cells - place).clamp(max=max(1, overlap))


def blended(parts: Tensor, corners: Corners, weight: Tensor, h: int, w: int) -> Tensor:
    """Tiles (T B, C, …) at their corners -> (B, C, h, w), the weighted mean where several see a cell."""
    if len(corners) == 1:
        return parts
    several = parts.chunk(len(corners))
    total = torch.zeros(*several[0].shape[:2], h, w, device=parts.device)
    weights = torch.zeros(h, w, device=parts.device)
    for part, (top, left) in zip(several, corners, strict=True):
        rows, columns = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
        total[:, :, rows, columns] += part * weight
        weights[rows, columns] += weight
    return total / weights
