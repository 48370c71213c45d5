import numpy as np
import torch

from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import CELL, TOLD, Shape
from archiver.codecs.layered_style import load_judges
from archiver.training.layered import LayeredCrops, LayeredTask, LayeredWeights
from archiver.training.layered_styles import blocks_of, directions, slopes, with_style
from archiver.training.perceptual import Weights
from archiver.training.recipes import find_recipe
from archiver.training.run import tensors_of
from archiver.weights import named_weights
from tests.samples import photograph

SHAPE = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=2, deep=8, deep_blocks=1, side=3)


def drawn(enhancer: Enhancer, style: list[float]) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    small = torch.rand(1, 3, 32, 32, generator=random) * 2 - 1
    noises = (torch.randn(1, 1, side, side, generator=random) for side in (16, 64))
    told = torch.tensor([[0.0] * TOLD + style])
    with torch.no_grad():
        made: torch.Tensor = enhancer(small, torch.ones(1, 3, 4, 4), 2, told, *noises)
    return made


def test_components_are_what_slopes_have_in_common() -> None:
    rng = np.random.default_rng(0)
    known = np.zeros((2, 40))
    known[0, :20], known[1, 20:] = 1, 1
    found = rng.normal(size=(300, 2)) @ known + 0.2 * rng.normal(size=(300, 40))
    along = directions(torch.from_numpy(found).float(), 2)
    assert torch.allclose(along.norm(dim=1), torch.ones(2), atol=1e-6)
    across = (
        along * torch.from_numpy((found**2).mean(0) ** 0.25).float()
    )  # as they were found: at right angles
    first, second = torch.nn.functional.normalize(across, dim=1)
    assert abs(float(first @ second)) < 1e-4
    assert float((along @ torch.from_numpy(known.T / 20**0.5).float()).square().sum()) > 1.95


def test_biases_of_steep_slopes_move_no_further_than_others_and_those_of_none_stay() -> None:
    steep = torch.tensor([0.01, 1.0, 4.0, 100.0, 0.0])
    (along,) = directions(torch.randn(50, 1, generator=torch.Generator().manual_seed(0)) * steep, 1)
    assert torch.allclose(along[:4].abs(), torch.full((4,), 0.5), atol=1e-4)
    assert along[4] == 0


def test_a_style_of_zeros_draws_as_before_and_numbers_move_biases() -> None:
    torch.manual_seed(0)
    plain = Enhancer(SHAPE).eval()
    count = sum(len(block.told.bias) for _, block in blocks_of(plain))
    along = torch.zeros(2, count)
    along[0, 3], along[1, -1] = 1, 1
    styled = with_style(plain, along)
    expected = drawn(plain, [])
    assert torch.allclose(drawn(styled, [0, 0]), expected, atol=1e-6)
    for number, place in ((0, 3), (1, -1)):
        blocks = blocks_of(plain)
        bias = blocks[0 if place == 3 else -1][1].told.bias
        with torch.no_grad():
            bias[place] += 2
        told: list[float] = [0, 0]
        told[number] = 2
        assert not torch.allclose(drawn(plain, []), expected, atol=1e-6)
        assert torch.allclose(drawn(styled, told), drawn(plain, []), atol=1e-5)
        with torch.no_grad():
            bias[place] -= 2


def test_down_the_slopes_what_is_drawn_comes_nearer() -> None:
    shape = {name: int(str(value)) for name, value in find_recipe("layered").shape.items()} | {"style": 0}
    task = LayeredTask(Shape(**shape), Weights(), LayeredWeights(margin=CELL), begin=named_weights("layered"))
    crops = LayeredCrops(128, scales=((2, 1.0),))
    pair = crops(photograph("chelsea"), None, 2, 0, 0)
    (found,) = slopes(task, task.generator, [pair], torch.device("cpu"))
    blocks = blocks_of(task.generator.enhancer)
    assert found.shape == (sum(len(block.told.bias) for _, block in blocks),)

    @torch.no_grad()
    def apart(step: float) -> float:
        """After such a step along the slopes."""
        parts = torch.split(step * found / found.norm(), [len(block.told.bias) for _, block in blocks])
        for (_, block), part in zip(blocks, parts, strict=True):
            block.told.bias.add_(part)
        batch = task.prepared(tensors_of(pair, torch.device("cpu")), torch.Generator().manual_seed(0))
        made, target = (task.inner(x) for x in (task.generated(task.generator, batch), batch["target"]))
        judges = load_judges(torch.device("cpu"))
        judged = float(judges.apart(made, target, judges.real(target)))
        for (_, block), part in zip(blocks, parts, strict=True):
            block.told.bias.sub_(part)
        return judged

    assert apart(-0.3) < apart(0) < apart(0.3)
