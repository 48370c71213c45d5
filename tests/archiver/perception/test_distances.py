"""LPIPS and DISTS against numbers that the public packages gave (tests/archiver/perception/README.md)."""

import json
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from pipelines.codec import Pixels
from tests.pairs import PAIRS

REFERENCE: dict[str, dict[str, float]] = json.loads((Path(__file__).parent / "reference.json").read_text())


@cache
def network(name: str) -> torch.nn.Module:
    match name:
        case "lpips_alex":
            return LPIPS("alexnet")
        case "lpips_vgg":
            return LPIPS("vgg16")
        case _:
            return DISTS()


def tensor(pixels_hwc: Pixels, name: str) -> Tensor:
    """In the range that the network takes."""
    unit = torch.tensor(pixels_hwc).permute(2, 0, 1)[None] / 255
    return unit if name == "dists" else 2 * unit - 1


def distance(name: str, first: Pixels, second: Pixels) -> float:
    with torch.no_grad():
        return float(network(name)(tensor(first, name), tensor(second, name)))


NAMES = ["lpips_alex", "lpips_vgg", "dists"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_the_distance_is_that_of_the_public_package(name: str, pair: str) -> None:
    assert distance(name, *PAIRS[pair]()) == pytest.approx(REFERENCE[pair][name], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_at_distance_nothing_of_itself(name: str) -> None:
    original = PAIRS["soft"]()[0]
    assert distance(name, original, original) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [0, 1, 90, 255])
def test_flat_pictures_are_no_further_apart_than_any(level: int) -> None:
    """Of their features rounding alone varies, which must not count."""
    flat, other = (np.full((64, 96, 3), value, dtype=np.uint8) for value in (level, 128))
    assert distance("dists", flat, flat) == pytest.approx(0, abs=1e-5)
    assert 0 < distance("dists", flat, other) < 1


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_its_pictures_give_alone(name: str) -> None:
    pairs = [tuple(side[:64, :71] for side in PAIRS[pair]()) for pair in ("soft", "noisy")]
    first, second = (torch.cat([tensor(pair[side], name) for pair in pairs]) for side in (0, 1))
    with torch.no_grad():
        together = network(name)(first, second)
    alone = [distance(name, *pair) for pair in pairs]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_where_all_features_are_zero_lpips_has_a_gradient(backbone: Literal["alexnet", "vgg16"]) -> None:
    """The root of their sum of squares has no slope there: training would go on with NaN."""
    lpips = LPIPS(backbone)
    some = lpips.taps(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    none = [torch.zeros_like(features).requires_grad_() for features in some]
    lpips.distance(none, some).sum().backward()  # type: ignore[no-untyped-call]
    for features in none:
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()


def test_dists_of_windows_together_is_that_of_the_picture_they_make() -> None:
    judge, random = network("dists"), torch.Generator().manual_seed(0)
    first, second = (
        [torch.rand(1, channels, 4, 8, generator=random) for channels in (3, 64, 128, 256, 512, 512)]
        for _ in range(2)
    )
    assert isinstance(judge, DISTS)
    halves = ([torch.cat(x.chunk(2, 3)) for x in taps] for taps in (first, second))
    assert float(judge.together(*halves)) == pytest.approx(float(judge.distance(first, second)), rel=1e-4)
    apart = judge.distance([x[..., :4] for x in first], [x[..., :4] for x in second])
    assert float(judge.together(first, second)) != pytest.approx(float(apart), rel=1e-4)
