"""LPIPS v0.1 (Zhang et al., CVPR 2018): weighted squared distance between normalised deep features."""

from functools import reduce
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from archiver.perception.backbones import Features, backbone_tensors

# The package's own constants, for pixels in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Distance of pictures (B, 3, H, W) in [-1, 1], at least 32 pixels a side: (B,), 0 for equal ones."""

    def __init__(self, network: Literal["alexnet", "vgg16"], folder: Path | None = None) -> None:
        super().__init__()
        tensors = backbone_tensors(network, folder)
        self.features = Features(network, tensors)
        self.strides = self.features.strides
        for number in range(5):
            self.register_buffer(f"linear{number}", tensors[f"linear{number}"].view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def taps(self, x: Tensor) -> list[Tensor]:
        """The five feature maps, not normalised."""
        taps: list[Tensor] = self.features((x - self.get_buffer("shift")) / self.get_buffer("scale"))
        return taps

    def means(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """From the `taps` of two pictures: what each feature map adds to their distance, means over positions, (B,)."""
        found = []
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            squares = (_normalised(a.float()) - _normalised(b.float())) ** 2
            found.append((squares * self.get_buffer(f"linear{number}")).sum(1).mean((1, 2)))
        return found

    def of_means(self, means: list[Tensor]) -> Tensor:
        """(B,), from `means`."""
        return reduce(torch.add, means)

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """(B,), from the `taps` of two pictures."""
        return self.of_means(self.means(first, second))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.distance(self.taps(first), self.taps(second))


def _normalised(features: Tensor) -> Tensor:
    # The small number below the root, not beside it: where all features are zero its slope would be NaN.
    return features / ((features**2).sum(1, keepdim=True) + 1e-20).sqrt()
