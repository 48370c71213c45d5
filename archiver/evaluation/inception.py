"""The Inception network that FID is defined by: pixels -> 2048 features.

The network is the one of "pt_inception-2015-12-05" (Inception v3 as TensorFlow shipped it in 2015, with three average
poolings and a max pooling that other copies lack). Only that file is taken: with any other features the number would
not be FID. Pictures are enlarged to 299 x 299 as TensorFlow 1 did, without half-pixel centres.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.codec import Pixels
from pipelines.weights import sha256_of_file

# The published file pt_inception-2015-12-05-6726825d.pth, as torch.hub would check it: by the start of its sha256.
SHA256_START = "6726825d"
FEATURES = 2048
SIDE = 299  # pixels


def check_inception(file: Path) -> None:
    """ValueError for any other file than the published one."""
    found = sha256_of_file(file)
    if not found.startswith(SHA256_START):
        raise ValueError(
            f"{file} has the sha256 {found[:8]}..., expected {SHA256_START}... (pt_inception-2015-12-05-6726825d.pth): "
            "with other features it would not be FID"
        )


def load_features(file: Path) -> Callable[[list[Pixels]], NDArray[np.float64]]:
    """Patches of one size -> features (patches, 2048)."""
    check_inception(file)
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    network = Inception()
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")})
    network.eval()

    def features(several: list[Pixels]) -> NDArray[np.float64]:
        with torch.inference_mode():
            return np.concatenate([
                network(torch.from_numpy(np.array(patch)).permute(2, 0, 1)[None]).double().numpy() for patch in several
            ])  # fmt: skip

    return features


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, padding: bool = True
    ) -> None:
        super().__init__()
        sizes = (size, size) if isinstance(size, int) else size
        around = (sizes[0] // 2, sizes[1] // 2) if padding else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sizes, stride, around, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _A(nn.Module):
    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = _Unit(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Unit(inputs, 48, 1), _Unit(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(inputs, 64, 1), _Unit(64, 96, 3)
        self.branch3x3dbl_3 = _Unit(96, 96, 3)
        self.branch_pool = _Unit(inputs, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))],
            1,
        )


class _B(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Unit(inputs, 384, 3, 2, padding=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(inputs, 64, 1), _Unit(64, 96, 3)
        self.branch3x3dbl_3 = _Unit(96, 96, 3, 2, padding=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class _C(nn.Module):
    def __init__(self, middle: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        self.branch1x1 = _Unit(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = _Unit(768, middle, 1), _Unit(middle, middle, across)
        self.branch7x7_3 = _Unit(middle, 192, down)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Unit(768, middle, 1), _Unit(middle, middle, down)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _Unit(middle, middle, across), _Unit(middle, middle, down)
        self.branch7x7dbl_5 = _Unit(middle, 192, across)
        self.branch_pool = _Unit(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class _D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Unit(768, 192, 1), _Unit(192, 320, 3, 2, padding=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Unit(768, 192, 1), _Unit(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = _Unit(192, 192, (7, 1)), _Unit(192, 192, 3, 2, padding=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), double, F.max_pool2d(x, 3, 2)], 1)


class _E(nn.Module):
    def __init__(self, inputs: int, pool_max: bool) -> None:
        super().__init__()
        across, down = (1, 3), (3, 1)
        self.pool_max = pool_max
        self.branch1x1, self.branch3x3_1 = _Unit(inputs, 320, 1), _Unit(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Unit(384, 384, across), _Unit(384, 384, down)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(inputs, 448, 1), _Unit(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Unit(384, 384, across), _Unit(384, 384, down)
        self.branch_pool = _Unit(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.pool_max else _average(x)
        parts = [
            self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled),
        ]  # fmt: skip
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """uint8 levels (B, 3, H, W) -> features (B, 2048); its parameters are named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Unit(3, 32, 3, 2, padding=False)
        self.Conv2d_2a_3x3 = _Unit(32, 32, 3, padding=False)
        self.Conv2d_2b_3x3 = _Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = _Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = _Unit(80, 192, 3, padding=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _C(128), _C(160), _C(160), _C(192)
        self.Mixed_7a = _D()
        self.Mixed_7b, self.Mixed_7c = _E(1280, pool_max=False), _E(2048, pool_max=True)

    def forward(self, levels: Tensor) -> Tensor:
        x = (enlarged(levels.float()) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return torch.mean(x, (2, 3))


def enlarged(x: Tensor) -> Tensor:
    """To 299 x 299, bilinear, pixel n of the new picture at n * side / 299 of the old."""
    for axis in (2, 3):
        side = x.shape[axis]
        place = torch.arange(SIDE, dtype=torch.float32) * (side / SIDE)
        low = place.floor().long()
        share = (place - low).view((-1, 1) if axis == 2 else (-1,))
        first, second = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=side - 1))
        x = first + (second - first) * share
    return x
