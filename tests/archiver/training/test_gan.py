"""Training of the gan codec in both layouts, on real photographs at a tiny size."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from archiver.codecs.autoencoder import Autoencoder
from archiver.codecs.gan_networks import Gan, Shape, quantised, there
from archiver.codecs.networks import load_network, save_network
from archiver.codecs.symbols import LEVELS
from archiver.training.gan import RATES, GanTask, GanWeights, RateModel, boxes, take_over
from archiver.training.gan_fit import fitted
from archiver.training.loop import train
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe, export, start
from archiver.training.recipes import find_recipe
from archiver.training.run import Run, Schedule
from archiver.training.stream import PlainCrops
from manifests.storage import locate
from tests.codec_suite import decode_one, encode_one
from tests.golden_files import sha256
from tests.meta_device import left_behind
from tests.samples import photo
from tests.tiny_gan import tiny_codec
from tests.tiny_training import write_photographs

EMBEDDED = Shape(channels=4, labels=6, width=8, blocks=1)
PAPER = Shape(channels=4, labels=6, width=4, blocks=1, paper=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_autoencoder_is_taken_over_with_its_first_latents() -> None:
    torch.manual_seed(0)
    begun, gan = Autoencoder(Shape(channels=16, width=8, blocks=1)), Gan(EMBEDDED)
    take_over(gan, begun)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    latents, w = begun.encode(pixels), gan.encode(pixels)
    assert torch.allclose(w, latents[:, :4], atol=0.05)  # the bounds differ
    zeros = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 64, 64)
    few = torch.cat((latents[:, :4], torch.zeros_like(latents[:, 4:])), 1)
    coded = torch.zeros(1, 4, 4, dtype=torch.long)
    torch.nn.init.zeros_(gan.embed.weight)
    made = gan.decode(latents[:, :4], coded, torch.tensor([4]), *zeros)
    assert torch.allclose(made, begun.decode(few, *zeros), atol=1e-5)


def recipe_of(shape: Shape) -> Recipe:
    weights = Weights(dists_from=1, critic_from=2, dists_side=32, dists_count=1)
    return Recipe(
        "tiny-gan",
        task=lambda _: GanTask(shape, weights, GanWeights(sketch_steps=2, sees_labels=True)),
        crops=PlainCrops(64),
        crop=64,
        batch=4,
        schedule=Schedule(steps=5, warm_up=2, cool_down=2, check_steps=4, save_seconds=600),
        shape=asdict(shape),
        network=fitted,
    )


def run_of(recipe: Recipe, source: Path, out: Path) -> Run:
    return start(recipe, locate(str(source)), out, torch.device("cpu"))


@pytest.mark.parametrize("shape", [EMBEDDED, PAPER], ids=["embedded", "paper"])
def test_photographs_become_weights_that_code(source: Path, tmp_path: Path, shape: Shape) -> None:
    recipe = recipe_of(shape)
    run = run_of(recipe, source, tmp_path)
    before = {name: value.clone() for name, value in run.task.generator.state_dict().items()}
    checks = [progress.terms for progress in train(run) if progress.kind == "check"]
    assert {"lpips2", "dists2", "psnr2", "lpips4", "dists4", "psnr4"} <= checks[0].keys()
    after = run.task.generator.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    for part in ("network.encoder.", "network.generator.", "network.embed.", "rate.see.", "rate.say."):
        assert any(name.startswith(part) for name in changed), part
    assert not torch.equal(after["network.palette"], before["network.palette"])

    file = export(recipe, run)
    codec = tiny_codec({sha256(file.read_bytes()): file})
    encoded = encode_one(codec, photo(70, 100))
    assert decode_one(codec, encoded).shape == (70, 100, 3)


def test_to_stop_and_go_on_equals_not_to_stop(source: Path, tmp_path: Path) -> None:
    recipe = recipe_of(EMBEDDED)
    whole = run_of(recipe, source, tmp_path / "whole")
    list(train(whole))
    first = run_of(recipe, source, tmp_path / "parts")
    for progress in (steps := train(first)):
        if progress.step == 3:
            steps.close()
    second = run_of(recipe, source, tmp_path / "parts")
    list(train(second))
    for name, value in whole.task.generator.state_dict().items():
        assert torch.equal(value, second.task.generator.state_dict()[name]), name


def test_the_rate_model_looks_at_what_is_decoded_before_only() -> None:
    torch.manual_seed(0)
    model, symbols = RateModel(3), torch.randn(1, 3, 5, 5, requires_grad=True)
    share = torch.full((1, 3, 5, 5, LEVELS), 1 / LEVELS)
    model(symbols, share)[0, 1, 2, 2].backward()
    assert symbols.grad is not None
    seen = symbols.grad[0] != 0
    assert not seen[2].any()  # a later channel
    assert seen[0, 1:4, 1:4].all()  # the channel before
    assert seen[1].nonzero().tolist() == [[1, 1], [1, 2], [1, 3], [2, 1]]  # the row above, and left


def test_bits_of_symbols_that_are_always_the_same_fall_towards_none() -> None:
    torch.manual_seed(0)
    model = RateModel(1)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    w_hat, share = quantised(torch.ones(1, 1, 6, 6) * 1.0)
    sure = torch.nn.functional.one_hot(torch.full((1, 1, 6, 6), 3), LEVELS).float()
    assert w_hat.eq(1).all()
    assert share.argmax(-1).eq(3).all()
    assert abs(float(model(w_hat, sure).mean().detach()) - np.log2(LEVELS)) < 0.6
    for _ in range(80):
        optimiser.zero_grad()
        bits = model(w_hat, sure).mean()
        bits.backward()
        optimiser.step()
    assert float(model(w_hat, sure).mean().detach()) < 0.1


def test_quantising_gives_the_nearest_centre_and_a_slope() -> None:
    w = torch.tensor([-9.0, -1.6, -0.4, 0.2, 1.4, 2.4], requires_grad=True)
    hard, share = quantised(w)
    assert hard.tolist() == [-2, -2, 0, 0, 1, 2]
    assert torch.allclose(share.sum(-1), torch.ones(6))
    hard.sum().backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None
    assert bool((w.grad[1:] > 0.1).all())


def test_only_coded_cells_of_the_first_channels_are_there() -> None:
    labels = torch.tensor([[[0, 3], [0, 0]]])
    assert there(labels, torch.tensor([2]), 3)[0].tolist() == [[[1, 0], [1, 1]]] * 2 + [[[0, 0], [0, 0]]]


def test_boxes_are_drawn_in_their_share_of_the_crops() -> None:
    random = torch.Generator().manual_seed(1)
    drawn = boxes(400, 8, 0.25, random).flatten(1)
    some = drawn.any(1).float().mean()
    assert 0.15 < float(some) < 0.3
    assert not bool(boxes(50, 8, 0.0, random).any())


def test_a_batch_has_one_rate_and_is_remembered_with_its_like() -> None:
    torch.manual_seed(0)
    weights = Weights(dists_from=0, critic_from=9, dists_side=32, mosaic=1.0)
    task = GanTask(EMBEDDED, weights, GanWeights(sketch_steps=0))
    target = torch.rand(3, 3, 64, 64) * 2 - 1
    drawn = set()
    for step in range(6):
        random = torch.Generator().manual_seed(step)
        batch = task.prepared({"target": target}, random)
        (channels,) = set(batch["channels"].tolist())
        place = RATES.index(channels)
        assert task.critic is not None
        before = task.critic.get_buffer("mosaic.seen").clone()
        task.generator_loss(batch, 500, random)
        changed = task.critic.get_buffer("mosaic.seen") != before
        assert changed.nonzero().flatten().tolist() == [place]
        drawn.add(channels)
    assert drawn == {2, 4}


def test_a_batch_that_is_not_finite_leaves_the_palette() -> None:
    torch.manual_seed(0)
    task, random = GanTask(EMBEDDED, Weights(), GanWeights()), torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 64, 64) * 2 - 1
    palette = task.generator.network.get_buffer("palette")
    task._labels(target, 0, random)
    task._labels(target * torch.nan, 1, random)
    assert bool(palette.isfinite().all())


def test_what_judges_is_where_the_batch_is() -> None:
    task = GanTask(EMBEDDED, Weights(), GanWeights())
    assert left_behind(task, {"target": torch.zeros(1, 3, 64, 64)}) == []


def test_the_papers_layout_has_the_papers_widths() -> None:
    recipe = find_recipe("gan-paper")
    assert (recipe.shape["width"], recipe.shape["blocks"], recipe.shape["channels"]) == (60, 9, 8)
    assert recipe.shape["paper"] == 1


def test_saving_keeps_integers_whole(tmp_path: Path) -> None:
    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor([32_767, 2_049], dtype=torch.int16))

    save_network(Counted(), {}, tmp_path / "counted.safetensors")
    loaded = load_network(tmp_path / "counted.safetensors", lambda shape: Counted(), torch.device("cpu"))
    assert loaded.get_buffer("count").tolist() == [32_767, 2_049]
