import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from archiver.codecs.drawing import enlarged
from archiver.codecs.layered_blocks import ROWS, Block, in_rows
from archiver.codecs.layered_networks import Deep, Enhancer
from archiver.codecs.layered_shape import CELL, DRAWN_REACH, ENCODER_REACH, SCALES, Shape
from archiver.training.layered import LayeredTask, LayeredWeights, grow
from archiver.training.perceptual import Weights
from archiver.training.recipes import find_recipe
from archiver.weights import named_weights
from tests.meta_device import left_behind

SMALLER = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=1)
LARGER = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=3)
SIDED = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=2, deep=8, deep_blocks=1, side=3)


def drawn(enhancer: Enhancer, side: Tensor | None = None) -> Tensor:
    random = torch.Generator().manual_seed(1)
    small = torch.rand(1, 3, 32, 32, generator=random) * 2 - 1
    noises = [torch.randn(1, 1, side, side, generator=random) for side in (16, 64)]
    dtype = next(enhancer.parameters()).dtype
    made: Tensor = enhancer(
        small.to(dtype), side, 2, torch.zeros(1, 3, dtype=dtype), *(n.to(dtype) for n in noises)
    )
    return made


def test_an_enhancer_that_has_grown_draws_as_before_and_learns() -> None:
    torch.manual_seed(0)
    smaller, larger = Enhancer(SMALLER), Enhancer(LARGER)
    grow(larger, smaller)
    assert torch.allclose(drawn(larger), drawn(smaller), atol=1e-5)
    drawn(larger).square().mean().backward()  # type: ignore[no-untyped-call]
    for block in list(larger.inside)[1:]:
        slope = block.get_parameter("narrow.weight").grad
        assert slope is not None
        assert bool(slope.any())


@torch.no_grad()
def test_a_network_draws_the_same_where_nothing_learns() -> None:
    torch.manual_seed(0)
    enhancer, symbols = Enhancer(replace(SIDED, edges=1)), torch.randn(1, 3, 4, 4).round()
    with torch.enable_grad():
        expected = drawn(enhancer, symbols).detach()
    assert torch.allclose(drawn(enhancer, symbols), expected, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_side_symbols_change_what_is_drawn_near_them_alone(blocks: int) -> None:
    torch.manual_seed(0)
    enhancer = Enhancer(replace(SIDED, coarse_blocks=blocks)).double()  # what is far differs by no rounding
    nothing = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    one = nothing.clone()
    one[0, 1, 0, 0] = 3
    apart = (drawn(enhancer, one) - drawn(enhancer, nothing)).detach().abs().amax((0, 1))
    near = float(apart[:16, :16].max())
    assert near > 1e-5
    assert float(apart[-4:, -4:].max()) < near / 1000


@pytest.mark.parametrize("height", [ROWS + 1, 2 * ROWS + 3])
@pytest.mark.parametrize("edges", [False, True])
@torch.no_grad()
def test_a_block_makes_the_same_of_rows_as_of_all(height: int, edges: bool) -> None:
    torch.manual_seed(0)
    block, x, condition = Block(8, 4, edges), torch.randn(1, 8, height, 5), torch.randn(1, 4)
    torch.nn.init.normal_(block.told.weight)
    expected = block(x, condition)
    made = in_rows(block, x, condition)
    assert torch.allclose(made, expected, atol=1e-5)
    assert made is x


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (6, 7)])
def test_a_block_sees_its_edges_repeated_beyond_them(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block, other = Block(8, 4, edges=True), Block(8, 4)
    other.load_state_dict(block.state_dict())
    other.mix.padding_mode = "replicate"
    condition, x = torch.randn(2, 4), torch.randn(2, 8, *size)
    slopes = []
    for made_by in (block, other):
        seen = x.clone().requires_grad_(True)
        made = made_by(seen, condition)
        made.square().sum().backward()
        assert seen.grad is not None
        slopes.append((made.detach(), seen.grad, made_by.mix.weight.grad))
    for found, expected in zip(*slopes, strict=True):
        assert found is not None
        assert expected is not None
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("edges", [0, 1])
@torch.no_grad()
def test_what_is_flat_stays_flat_to_its_edges_where_they_are_repeated(edges: int) -> None:
    torch.manual_seed(0)
    level = Deep(replace(SIDED, edges=edges), 4)
    made = level(torch.ones(1, 8, 12, 8), torch.ones(1, 3, 6, 4), torch.zeros(1, 4))
    apart = (made - made[..., 4:6, 4:6].repeat(1, 1, 6, 4)).abs().amax()  # cells of 1/16 have four places
    assert float(apart) < 1e-5 if edges else float(apart) > 1e-3


@torch.no_grad()
def test_a_block_makes_the_same_of_one_as_of_several() -> None:
    torch.manual_seed(0)
    block, x, condition = Block(8, 4), torch.randn(3, 8, 6, 5), torch.randn(3, 4)
    torch.nn.init.normal_(block.told.weight)
    together = block(x, condition)
    for place in range(3):
        alone = block(x[place : place + 1], condition[place : place + 1])
        assert torch.allclose(alone, together[place : place + 1], atol=1e-5)


def test_a_block_that_learns_changes_nothing_in_place() -> None:
    block, x, condition = Block(8, 4), torch.randn(1, 8, ROWS + 1, 5), torch.randn(1, 4)
    before = x.clone()
    in_rows(block, x, condition).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(x, before)
    assert block.narrow.weight.grad is not None


def test_symbols_that_nothing_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="no level at 1/16"):
        Enhancer(replace(SIDED, deep_blocks=0))


def test_only_blocks_may_be_missing() -> None:
    with pytest.raises(ValueError, match=r"do not share inside\.1"):
        grow(Enhancer(SMALLER), Enhancer(LARGER))


def test_side_bits_are_free_at_first_and_priced_then() -> None:
    torch.manual_seed(0)
    weights = Weights(dists_from=9, critic_from=9, l1=0, lpips=0)
    slopes = []
    for bits in (0.0, 100.0):
        torch.manual_seed(0)
        task = LayeredTask(SIDED, weights, LayeredWeights(bits=((2, bits),), bits_from=2, bits_whole=3))
        for step in (0, 3):
            random = torch.Generator().manual_seed(0)
            batch = {
                "target": torch.rand(2, 3, 64, 64, generator=random) * 2 - 1,
                "small": torch.rand(2, 3, 32, 32, generator=random) * 2 - 1,
                "told": torch.zeros(2, 3),
                "band": torch.tensor([0, 5]),
            }
            task.generator.zero_grad()
            task.generator_loss(task.prepared(batch, random), step, random).loss.backward()  # type: ignore[no-untyped-call]
            slope = task.generator.get_parameter("enhancer.observer.out.weight").grad
            slopes.append(0.0 if slope is None else float(slope.abs().sum()))
    free_first, free_then, priced_first, priced_then = slopes
    assert free_first == free_then == priced_first == 0
    assert priced_then > 0


@pytest.mark.parametrize("margin", [0, CELL])
def test_what_is_drawn_in_the_margin_counts_nothing(margin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    task = LayeredTask(SIDED, Weights(dists_from=0, critic_from=0), LayeredWeights(grid=1.0, margin=margin))
    random, side = torch.Generator().manual_seed(0), 6 * CELL
    batch = task.prepared(
        {
            "target": torch.rand(1, 3, side, side, generator=random) * 2 - 1,
            "small": torch.rand(1, 3, side // 2, side // 2, generator=random) * 2 - 1,
            "told": torch.zeros(1, 3),
            "band": torch.zeros(1, dtype=torch.long),
        },
        random,
    )
    made = torch.zeros(1, 3, side, side, requires_grad=True)
    monkeypatch.setattr(task, "_drawn", lambda *_: made)
    task.generator_loss(batch, 10, random).loss.backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    counts = made.grad.abs().amax((0, 1)) > 0
    inner = slice(margin, side - margin)
    assert bool(counts[inner, inner].all())
    assert int(counts.sum()) == (side - 2 * margin) ** 2


def test_what_judges_is_where_the_batch_is() -> None:
    assert left_behind(LayeredTask(SIDED, Weights()), {"target": torch.zeros(1, 3, 64, 64)}) == []


def test_the_recipe_makes_a_network_as_the_one_that_ships() -> None:
    with safe_open(named_weights("layered"), "pt") as found:
        assert json.loads(found.metadata()["shape"]) == find_recipe("layered").shape


@pytest.fixture(scope="module")
def thin() -> Enhancer:
    """As deep as the one that ships, but thin; all weights positive, so that no slope dies out on its way."""
    torch.manual_seed(0)
    shape = dict(find_recipe("layered").shape) | {"fine": 4, "coarse": 4, "deep": 4, "side": 3}
    enhancer = Enhancer(Shape(**{name: int(str(value)) for name, value in shape.items()}))
    with torch.no_grad():
        for parameter in enhancer.parameters():
            parameter.abs_().add_(0.1)
    return enhancer.double()


def reach(make: Callable[[Tensor], Tensor], planes: Tensor, step: int) -> int:
    """How many cells around the middle one its making looks; `step`: of the planes, to a cell."""
    planes.requires_grad_(True)
    made = make(planes)
    cells = planes.shape[-1] // step
    size, middle = made.shape[-1] // cells, cells // 2
    mine = slice(middle * size, (middle + 1) * size)
    made[..., mine, mine].sum().backward()  # type: ignore[no-untyped-call]
    assert planes.grad is not None
    lines = planes.grad.abs().sum((0, 1, 2)).nonzero().flatten() // step
    return max(middle - int(lines.min()), int(lines.max()) - middle)


@pytest.mark.parametrize("scale", SCALES)
def test_the_network_that_ships_sees_no_further_than_tiles_do(thin: Enhancer, scale: int) -> None:
    told, step = torch.zeros(1, 3).double(), CELL // scale

    def planes(cells: int, step: int, channels: int = 1) -> Tensor:
        return torch.rand(1, channels, cells * step, cells * step).double()

    def begun(small: Tensor) -> Tensor:
        return thin.begun(small, scale, told, planes(small.shape[-1] // step, 4))

    cells = 2 * ENCODER_REACH + 3
    small, coarse, full = planes(cells, step, 3), planes(cells, 2, 4), planes(cells, CELL)

    def drawn(small: Tensor, coarse: Tensor) -> Tensor:
        return thin.drawn(begun(small), coarse, small, scale, told, full)

    assert reach(lambda small: thin.lowered(begun(small)), small.clone(), step) <= DRAWN_REACH
    assert reach(lambda small: drawn(small, coarse), small.clone(), step) <= DRAWN_REACH
    assert reach(lambda coarse: drawn(small.detach(), coarse), coarse, 2) <= DRAWN_REACH

    assert thin.observer is not None
    observer, pixels = thin.observer, planes(cells, CELL, 3)
    seen = reach(lambda pixels: observer(pixels, enlarged(small.detach(), scale), told)[0], pixels, CELL)
    assert ENCODER_REACH - 2 <= seen <= ENCODER_REACH
    seen = reach(
        lambda small: observer(pixels.detach(), enlarged(small, scale), told)[0], small.clone(), step
    )
    assert seen <= ENCODER_REACH
