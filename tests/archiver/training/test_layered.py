import json

import pytest
import torch
from safetensors import safe_open

from archiver.codecs.layered import CELL, MARGIN, SCALES, Enhancer, Shape
from archiver.training.layered import grow
from archiver.training.recipes import find_recipe
from archiver.weights import named_weights

SMALLER = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=1)
LARGER = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=3)


def test_an_enhancer_that_has_grown_draws_as_before_and_learns() -> None:
    torch.manual_seed(0)
    smaller, larger = Enhancer(SMALLER), Enhancer(LARGER)
    grow(larger, smaller)
    told, noises = torch.zeros(1, 3), (torch.randn(1, 1, 16, 16), torch.randn(1, 1, 64, 64))
    small = torch.rand(1, 3, 32, 32) * 2 - 1
    drawn = larger(small, 2, told, *noises)
    assert torch.allclose(drawn, smaller(small, 2, told, *noises), atol=1e-5)
    drawn.square().mean().backward()
    for block in list(larger.inside)[1:]:
        slope = block.get_parameter("narrow.weight").grad
        assert slope is not None
        assert bool(slope.any())


def test_only_blocks_may_be_missing() -> None:
    with pytest.raises(ValueError, match=r"do not share inside\.1"):
        grow(Enhancer(SMALLER), Enhancer(LARGER))


def test_the_recipe_makes_a_network_as_the_one_that_ships() -> None:
    with safe_open(named_weights("layered"), "pt") as found:
        assert json.loads(found.metadata()["shape"]) == find_recipe("layered").shape


@pytest.mark.parametrize("scale", SCALES)
def test_the_network_that_ships_sees_no_further_than_tiles_do(scale: int) -> None:
    torch.manual_seed(0)
    shape = dict(find_recipe("layered").shape) | {"fine": 4, "coarse": 4}
    enhancer = Enhancer(Shape(**{name: int(str(value)) for name, value in shape.items()}))
    side = 2 * MARGIN + 6 * CELL
    small = torch.rand(1, 3, side // scale, side // scale, requires_grad=True)
    noises = torch.randn(1, 1, side // 4, side // 4), torch.randn(1, 1, side, side)
    with torch.no_grad():  # leaky slopes die out over so many layers
        for parameter in enhancer.parameters():
            parameter.abs_().add_(0.1)
    place = MARGIN + 3 * CELL
    enhancer.double()(
        small.double(), scale, torch.zeros(1, 3).double(), *(noise.double() for noise in noises)
    )[0, 0, place : place + CELL, place : place + CELL].sum().backward()
    assert small.grad is not None
    seen = small.grad.abs().sum((0, 1, 2)).nonzero().flatten() * scale
    assert 100 < place - int(seen.min()) <= MARGIN
    assert 100 < int(seen.max()) + scale - place - CELL <= MARGIN
