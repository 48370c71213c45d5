"""What the recipes minimise: distances between pictures, and critics that learn to tell them apart."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from archiver.codecs.drawing import GRID


def hinge_critic(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss of a critic's logit maps (Lim & Ye 2017)."""
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def hinge_generator(fake: Sequence[Tensor]) -> Tensor:
    """What the generator minimises against `hinge_critic`."""
    return torch.stack([-f.mean() for f in fake]).mean()


def least_squares_critic(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """LSGAN (Mao et al., ICCV 2017): real to 1, fake to 0."""
    losses = [((r - 1) ** 2).mean() + (f**2).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean() / 2


def least_squares_generator(fake: Sequence[Tensor]) -> Tensor:
    return torch.stack([((f - 1) ** 2).mean() for f in fake]).mean()


def _conv(inside: int, outside: int, size: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inside, outside, size, stride, padding=(size - 1) // 2))


class FeatureCritic(nn.Module):
    """Heads on frozen features (projected GAN, Sauer et al., NeurIPS 2021): a logit map for each of some taps."""

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                _conv(inside, width, 1),
                nn.LeakyReLU(0.2),
                _conv(width, width, 3),
                nn.LeakyReLU(0.2),
                _conv(width, 1, 1),
            )
            for inside in channels
        )

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        # Features of ReLU networks grow with depth: one scale for all keeps the heads' steps alike.
        return [
            head(tap / (tap.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-6))
            for head, tap in zip(self.heads, taps, strict=True)
        ]


class PixelCritic(nn.Module):
    """A patch critic on pixels (B, 3, H, W) beside what they were made from (B, C, H, W): sees grids and noise."""

    def __init__(self, beside: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3 + beside, width, 4, 2), nn.LeakyReLU(0.2),
            _conv(width, 2 * width, 4, 2), nn.LeakyReLU(0.2),
            _conv(2 * width, 4 * width, 4, 2), nn.LeakyReLU(0.2),
            _conv(4 * width, 4 * width, 3), nn.LeakyReLU(0.2),
            _conv(4 * width, 1, 3),
        )  # fmt: skip

    def forward(self, pixels: Tensor, beside: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat((pixels, beside), 1))
        return logits


def repeated(difference: Tensor) -> Tensor:
    """Mean amplitude of the pattern that (B, 3, H, W) repeats in all its cells of GRID x GRID pixels."""
    batch, colours, height, width = difference.shape
    cells = difference.float().reshape(batch, colours, height // GRID, GRID, width // GRID, GRID)
    pattern = cells.mean((0, 2, 4))
    amplitude: Tensor = (pattern - pattern.mean((1, 2), keepdim=True)).abs().mean()
    return amplitude
