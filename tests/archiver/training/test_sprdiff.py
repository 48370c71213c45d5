"""Training of the sprdiff codec on real photographs at a tiny size, through both stages to a codec."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from archiver.codecs.autoencoder import load_autoencoder
from archiver.codecs.latent_codec import load_coder
from archiver.codecs.sprdiff_networks import Sprdiff, averages_and_details
from archiver.codecs.sprdiff_shape import Shape
from archiver.training import context_fit, sprdiff_fit
from archiver.training.loop import train
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe, export, start
from archiver.training.recipes import find_recipe
from archiver.training.run import Run, Schedule
from archiver.training.sprdiff import SprdiffTask, SprdiffWeights, embedded_eyes
from archiver.training.stream import PlainCrops
from manifests.storage import locate
from tests.codec_suite import decode_one, encode_one
from tests.golden_files import sha256
from tests.meta_device import left_behind
from tests.samples import photo
from tests.tiny_sprdiff import SHAPE, tiny_codec, tiny_parts
from tests.tiny_training import write_photographs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context_fit, "FIT_STEPS", 5)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


EXTRA = SprdiffWeights(targets=(0.01, 0.02, 0.04), sketch_steps=2, anneal_steps=3)
TINY = Recipe(
    "tiny-sprdiff",
    task=lambda parts: SprdiffTask(
        SHAPE, Weights(dists_from=2, critic_from=3, dists_side=32), EXTRA, embedded_eyes(parts)
    ),
    crops=PlainCrops(64),
    crop=64,
    batch=4,
    schedule=Schedule(steps=5, warm_up=2, cool_down=2, check_steps=4, save_seconds=600),
    shape=asdict(SHAPE),
    network=sprdiff_fit.fitted,
    parts=("autoencoder", "autoencoder-mse"),
)


def run_of(source: Path, parts: Mapping[str, Path], out: Path) -> Run:
    return start(TINY, locate(str(source)), out, torch.device("cpu"), parts=parts)


def test_photographs_become_weights_that_code(
    source: Path, parts: Mapping[str, Path], tmp_path: Path
) -> None:
    run = run_of(source, parts, tmp_path)
    before = {name: value.clone() for name, value in run.task.generator.state_dict().items()}
    told = list(train(run))
    terms = [progress.terms for progress in told if progress.kind == "train"]
    assert all("distilled" in one and "lpips" not in one for one in terms[:2])
    assert all("distilled" not in one and "lpips" in one for one in terms[2:])
    (check,) = [progress.terms for progress in told if progress.kind == "check"]
    for rate in range(3):
        assert {f"{name}{rate}" for name in ("bpp", "lpips", "dists", "psnr", "coarse-psnr")} <= check.keys()
    after = run.task.generator.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    for part in ("semantic", "analysis", "reconstruction", "guidance", "denoiser", "told", "gain", "ungain"):
        assert any(name.startswith(f"network.{part}") for name in changed), part
    for part in ("context.see", "context.say", "taught", "prices"):
        assert any(name.startswith(part) for name in changed), part

    file = export(TINY, run)
    several = {sha256(one.read_bytes()): one for one in (file, *parts.values())}
    codec = tiny_codec(several, rate=1)
    encoded = encode_one(codec, photo(70, 100))
    assert decode_one(codec, encoded).shape == (70, 100, 3)
    assert 0 < codec.coder.bits(codec.unpack(encoded.bitstream, 3, 4), 1) <= 8 * len(encoded.bitstream)


def test_to_stop_and_go_on_equals_not_to_stop(
    source: Path, parts: Mapping[str, Path], tmp_path: Path
) -> None:
    whole = run_of(source, parts, tmp_path / "whole")
    list(train(whole))
    first = run_of(source, parts, tmp_path / "parts")
    for progress in (steps := train(first)):
        if progress.step == 3:
            steps.close()
    second = run_of(source, parts, tmp_path / "parts")
    list(train(second))
    for name, value in whole.task.generator.state_dict().items():
        assert torch.equal(value, second.task.generator.state_dict()[name]), name


def test_training_begins_at_a_picture(parts: Mapping[str, Path]) -> None:
    """Symbols in fine steps give, cell by cell, the picture that the autoencoder makes of latents."""
    torch.manual_seed(0)
    autoencoder = load_autoencoder(parts["autoencoder"], torch.device("cpu"))
    network = Sprdiff(
        Shape(channels=64, slices=2, rates=2, context=8, width=8, deep=8, blocks=1, unet=8, cross=8)
    )
    network.begin(autoencoder)
    reconstruction = network.reconstruction
    for quiet in (network.analysis.out, reconstruction.out, reconstruction.smooth[-1]):
        assert isinstance(quiet, torch.nn.Conv2d)
        torch.nn.init.zeros_(quiet.weight)
        assert quiet.bias is not None
        torch.nn.init.zeros_(quiet.bias)
    latents = torch.zeros(1, 16, 6, 6)
    latents[..., 2:4, 2:4] = 0.3 * torch.randn(1, 16, 2, 2)
    rates, there = torch.tensor([1]), torch.ones(1, 4, dtype=torch.bool)
    features = (latents, torch.zeros(1, 16, 6, 6), torch.zeros(1, 96, 6, 6))
    with torch.no_grad():
        _, coarse = network.reconstructed(network.analysed(features, rates, there), rates)
        _, empty = network.reconstructed(torch.zeros(1, 64, 3, 3), rates)
        noises = torch.zeros(1, 1, 24, 24), torch.zeros(1, 1, 96, 96)
        made, nothing = (autoencoder.decode(x, *noises) for x in (latents, torch.zeros_like(latents)))
    change = (coarse - empty)[..., 8:16, 8:16]
    wanted = torch.nn.functional.avg_pool2d(made - nothing, 4)[..., 8:16, 8:16]
    # As near as a sum of what single latents change comes to what all change.
    assert (change - wanted).square().mean() < 0.1 * wanted.square().mean()


def test_sums_and_differences_are_orthonormal() -> None:
    filters = averages_and_details(48, 16).flatten(1)
    assert torch.allclose(filters @ filters.T, torch.eye(48), atol=1e-6)
    assert bool((filters[:16].sum(1) == 2).all())
    assert bool((filters[16:].sum(1) == 0).all())


@pytest.mark.parametrize(("target", "dearer"), [(1e-4, True), (10.0, False)])
def test_a_rate_that_takes_too_many_bits_gets_dearer(
    parts: Mapping[str, Path], target: float, dearer: bool
) -> None:
    task = SprdiffTask(SHAPE, Weights(), replace(EXTRA, targets=(target,) * 3), embedded_eyes(parts))
    random = torch.Generator().manual_seed(0)
    numbers = np.random.default_rng(0)
    pixels = torch.from_numpy(numbers.uniform(-1, 1, (3, 3, 64, 64)).astype(np.float32))
    batch = task.prepared({"target": pixels}, random)
    assert sorted(batch["rates"].tolist()) == [0, 1, 2]
    before = task.generator.get_buffer("prices").clone()
    task.generator_loss(batch, 10, random)
    change = task.generator.get_buffer("prices") - before
    assert bool((change > 0).all() if dearer else (change < 0).all())


def test_a_batch_that_is_not_finite_changes_no_price(parts: Mapping[str, Path]) -> None:
    task = SprdiffTask(SHAPE, Weights(), EXTRA, embedded_eyes(parts))
    random = torch.Generator().manual_seed(0)
    batch = task.prepared({"target": torch.full((3, 3, 64, 64), torch.nan)}, random)
    before = task.generator.get_buffer("prices").clone()
    task.generator_loss(batch, 0, random)
    assert torch.equal(task.generator.get_buffer("prices"), before)


def test_what_is_frozen_is_where_the_batch_is(parts: Mapping[str, Path]) -> None:
    task = SprdiffTask(SHAPE, Weights(), EXTRA, embedded_eyes(parts))
    assert left_behind(task, {"target": torch.zeros(3, 3, 64, 64)}) == []


def test_the_recipe_makes_what_the_codec_loads() -> None:
    recipe = find_recipe("sprdiff-tiny")
    assert recipe.parts == ("autoencoder", "autoencoder-mse")
    assert recipe.shape == asdict(Shape())
    network = Sprdiff(Shape())
    size = sum(parameter.numel() for parameter in network.parameters())
    assert 6e6 < size < 7.5e6  # 15 MB in fp16
    network.entropy.get_buffer("table")[0, 0] = 1
    with pytest.raises(ValueError, match="does not rise"):
        load_coder(network.entropy)
