"""The networks of GC at the paper's own layout (Agustsson et al., ICCV 2019, section 3.2 and appendix): for GPUs.

    E: c7s1-60, d120, d240, d480, d960, c3s1-C, q        G: c3s1-960, 9 x R960, u480, u240, u120, u60, c7s1-3

cKs1-n is a KxK convolution with n filters, d a 3x3 convolution with stride 2, R a residual block of two 3x3
convolutions, u a transposed 3x3 convolution with stride 2; instance normalisation and ReLU after each, reflection
padding. Departures: G is also given the label planes, the noise, and how many channels it may trust, as planes
beside w_hat (the paper trains one network for each C), and its output is not bent by tanh: pixels are clamped.
Instance normalisation takes statistics of the whole picture: this layout knows no tiles.
"""

import torch
from torch import Tensor, nn


def _normalised(conv: nn.Module, channels: int) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]


def _same(inside: int, outside: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, padding=size // 2, padding_mode="reflect")


class PaperEncoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, channels, H/16, W/16), not yet quantised."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        layers = _normalised(_same(3, width, 7), width)
        for level in range(4):
            inside, outside = width << level, width << level + 1
            conv = nn.Conv2d(inside, outside, 3, stride=2, padding=1, padding_mode="reflect")
            layers += _normalised(conv, outside)
        self.layers = nn.Sequential(*layers, _same(16 * width, channels, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.layers(pixels)
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised(_same(channels, channels, 3), channels),
            *_normalised(_same(channels, channels, 3), channels)[:2],
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class PaperGenerator(nn.Module):
    """Planes (B, `planes`, h, w) and how far of the channels are there (B, 1) -> (B, 3, 16 h, 16 w)."""

    def __init__(self, width: int, planes: int, blocks: int) -> None:
        super().__init__()
        deepest = 16 * width
        layers = _normalised(_same(planes + 1, deepest, 3), deepest)
        layers += [_Residual(deepest) for _ in range(blocks)]
        for level in reversed(range(4)):
            inside, outside = width << level + 1, width << level
            conv = nn.ConvTranspose2d(inside, outside, 3, stride=2, padding=1, output_padding=1)
            layers += _normalised(conv, outside)
        self.layers = nn.Sequential(*layers, _same(width, 3, 7))

    def forward(self, planes_bchw: Tensor, told: Tensor) -> Tensor:
        batch, _, h, w = planes_bchw.shape
        told_plane = told[:, :, None, None].expand(batch, 1, h, w).to(planes_bchw.dtype)
        out: Tensor = self.layers(torch.cat((planes_bchw, told_plane), 1))
        return out.float()
