import torch

from archiver.codecs.layered import Enhancer, Shape
from archiver.training.layered import grow

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
