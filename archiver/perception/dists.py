"""DISTS (Ding et al., TPAMI 2020): structure and texture similarity of VGG-16 features."""

from pathlib import Path

import torch
from torch import Tensor, nn

from archiver.perception.backbones import backbone_tensors, load_features

_CHANNELS = [3, 64, 128, 256, 512, 512]
_EPSILON = 1e-6


class DISTS(nn.Module):
    """Distance of pictures (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.features = load_features("vgg16", folder)
        weights = backbone_tensors("dists", folder)
        total = weights["alpha"].sum() + weights["beta"].sum()
        self.register_buffer("alpha", weights["alpha"] / total)
        self.register_buffer("beta", weights["beta"] / total)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def taps(self, x: Tensor) -> list[Tensor]:
        normalised = (x - self.get_buffer("mean")) / self.get_buffer("deviation")
        return [x, *self.features(normalised, pool_l2=True)]

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """(B,), from the `taps` of two pictures."""
        similarity = torch.zeros(first[0].shape[0], device=first[0].device)
        alphas = torch.split(self.get_buffer("alpha"), _CHANNELS)
        betas = torch.split(self.get_buffer("beta"), _CHANNELS)
        for a, b, alpha, beta in zip(first, second, alphas, betas, strict=True):
            a, b = a.float(), b.float()
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            structure = (2 * mean_a * mean_b + _EPSILON) / (mean_a**2 + mean_b**2 + _EPSILON)
            spread_a, spread_b = a.var((2, 3), correction=0), b.var((2, 3), correction=0)
            together = (a * b).mean((2, 3)) - mean_a * mean_b
            texture = (2 * together + _EPSILON) / (spread_a + spread_b + _EPSILON)
            similarity = similarity + (structure * alpha).sum(1) + (texture * beta).sum(1)
        return 1 - similarity

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.distance(self.taps(first), self.taps(second))
