"""DISTS (Ding et al., TPAMI 2020): structure and texture similarity of VGG-16 features."""

from pathlib import Path

import torch
from torch import Tensor, nn

from archiver.perception.backbones import backbone_tensors, load_features

CHANNELS = 3 + 64 + 128 + 256 + 512 + 512
_EPSILON = 1e-6


class DISTS(nn.Module):
    """Distance of pictures (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.features = load_features("vgg16", folder)
        self.strides = (1, *self.features.strides)
        weights = backbone_tensors("dists", folder)
        total = weights["alpha"].sum() + weights["beta"].sum()
        self.register_buffer("alpha", weights["alpha"] / total)
        self.register_buffer("beta", weights["beta"] / total)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def taps(self, x: Tensor) -> list[Tensor]:
        normalised = (x - self.get_buffer("mean")) / self.get_buffer("deviation")
        return [x, *self.features(normalised, pool_l2=True)]

    def moments(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """(5, B, C) from the `taps` of two pictures: means and variances of all features, and covariances.

        Around the means: as the mean of products less the product of means, features of flat pictures would have
        covariances, and variances below 0, of rounding alone, far above DISTS's epsilon.
        """
        found = []
        for a, b in zip(first, second, strict=True):
            a, b = a.float(), b.float()
            means = a.mean((2, 3)), b.mean((2, 3))
            a, b = (x - mean[:, :, None, None] for x, mean in zip((a, b), means, strict=True))
            found.append(torch.stack([*means, *(x.mean((2, 3)) for x in (a * a, b * b, a * b))]))
        return torch.cat(found, 2)

    def lacks(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """What each feature takes off a similarity of 1, (B, C): by its mean, and by its variance and covariance."""
        mean_a, mean_b, spread_a, spread_b, together = moments
        structure = (2 * mean_a * mean_b + _EPSILON) / (mean_a**2 + mean_b**2 + _EPSILON)
        texture = (2 * together + _EPSILON) / (spread_a + spread_b + _EPSILON)
        return self.get_buffer("alpha") * (1 - structure), self.get_buffer("beta") * (1 - texture)

    def apart(self, moments: Tensor) -> Tensor:
        """(B,), from the `moments` of two pictures."""
        by_means, by_variances = self.lacks(moments)
        return (by_means + by_variances).sum(1)

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """(B,), from the `taps` of two pictures."""
        return self.apart(self.moments(first, second))

    def means(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """From the `taps` of two pictures: of each map the means of features, squares and products, (5, B, C)."""
        several = [self.moments([a], [b]).double() for a, b in zip(first, second, strict=True)]
        return [moments + squared(moments) for moments in several]

    def of_means(self, means: list[Tensor]) -> Tensor:
        """(B,), from `means`."""
        whole = torch.cat(means, 2)
        return self.apart(whole - squared(whole))

    def together(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """A number, from the `taps` of two lists of windows: as if each list were one picture."""
        moments = self.moments(first, second)
        whole = (moments + squared(moments)).mean(1, keepdim=True)
        return self.apart(whole - squared(whole))[0]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.distance(self.taps(first), self.taps(second))


def squared(moments: Tensor) -> Tensor:
    """What `DISTS.moments` are short of means of squares and products: 0, 0, and the products of the means."""
    a, b = moments[:2]
    none = torch.zeros_like(a)
    return torch.stack((none, none, a * a, b * b, a * b))
