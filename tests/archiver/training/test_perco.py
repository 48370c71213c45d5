"""Training of the perco codec at a tiny width, on real photographs: embedded, and on Stable Diffusion's parts."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archiver.codecs.perco import load_perco
from archiver.codecs.perco_import import RATES, import_perco
from archiver.codecs.perco_networks import CosineVQ, HyperEncoder, Perco, Shape, shape_of
from archiver.codecs.perco_text import TextShape
from archiver.training import perco
from archiver.training.loop import train
from archiver.training.perco import (
    CAPTION_BYTES,
    PercoCrops,
    PercoTask,
    PercoWeights,
    Trained,
    common_words,
    embedded_task,
    from_letters,
    perplexity,
    quantised,
    to_letters,
)
from archiver.training.perco_fit import all_indices, fitted
from archiver.training.perco_sd import PARTS, foundation_task, weights_of_rate, widened
from archiver.training.photos import list_photos
from archiver.training.recipe import Recipe, export, start
from archiver.training.recipes import find_recipe
from archiver.training.run import Run, Schedule, in_parts
from archiver.training.stream import Feed
from archiver.training.task import Batch, Step
from manifests.records import CodecSpec, Param
from manifests.storage import locate
from tests.codec_suite import decode_one, encode_one
from tests.golden_files import sha256
from tests.meta_device import left_behind
from tests.samples import photo
from tests.tiny_perco import PARAMS, SHAPE, write_autoencoder
from tests.tiny_perco_sd import write_base, write_checkpoint
from tests.tiny_training import write_photographs

WORDS = common_words()
TINY = replace(
    SHAPE,
    text=TextShape(len(WORDS), len("\n".join(WORDS)), tokens=6, channels=16, layers=1, heads=2),
    modelled=False,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Stable Diffusion's, as an import writes them."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    write_base(folder / "base")
    write_checkpoint(folder / "checkpoint")
    written = import_perco(folder / "checkpoint", str(folder / "base"), "0.0313", folder / "out")
    return dict(zip(PARTS, written, strict=True))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def embedded(autoencoder: Path) -> Recipe:
    return Recipe(
        "tiny-perco",
        task=lambda _: embedded_task(TINY, PercoWeights(), autoencoder),
        crops=PercoCrops(64),
        crop=64,
        batch=4,
        schedule=Schedule(steps=5, warm_up=2, cool_down=2, check_steps=4, save_seconds=600),
        shape=asdict(replace(TINY, modelled=True)),
        network=lambda run: fitted(run, steps=20),
    )


def foundation(shape: Shape) -> Recipe:
    extra = PercoWeights(direct=0.0, levels="scaled-linear", lpips=0.1, window=5)
    return Recipe(
        "tiny-perco-sd",
        task=lambda found: foundation_task(shape, extra, found),
        crops=PercoCrops(64),
        crop=64,
        batch=4,
        schedule=Schedule(steps=3, warm_up=2, cool_down=1, check_steps=2, parts=2, decay=1e-2),
        shape=asdict(replace(shape, modelled=True)),
        network=lambda run: fitted(run, steps=20),
        parts=PARTS,
    )


def shape_in(file: Path) -> Shape:
    from safetensors import safe_open

    with safe_open(file, "pt") as found:
        return shape_of(json.loads(found.metadata()["shape"]))


def run_of(recipe: Recipe, source: Path, out: Path, parts: Mapping[str, Path] | None = None) -> Run:
    return start(recipe, locate(str(source)), out, torch.device("cpu"), parts=parts)


def test_photographs_become_weights_that_code(source: Path, tmp_path: Path) -> None:
    autoencoder = write_autoencoder(tmp_path)
    recipe = embedded(autoencoder)
    run = run_of(recipe, source, tmp_path / "run")
    before = {name: value.clone() for name, value in run.task.generator.state_dict().items()}
    checks = [progress.terms for progress in train(run) if progress.kind == "check"]
    assert {"v0", "sampled0", "direct0", "codes0", "v1", "codes1"} <= checks[0].keys()
    after = run.task.generator.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    for part in ("rates.0.hyper.", "rates.1.hyper.", "rates.0.vq.codebook", "unet.", "text.words."):
        assert any(name.startswith(f"network.{part}") for name in changed), part

    file = export(recipe, run)
    told = json.loads((tmp_path / "run" / "indices.json").read_text())
    assert [one["uniform"] for one in told] == [math.log2(16), math.log2(40)]
    assert all(0 < one["modelled"] < 16 for one in told)
    weights = {sha256(one.read_bytes()): one for one in (file, autoencoder)}
    codec = load_perco(CodecSpec("perco", 1, PARAMS, tuple(weights)), weights, "cpu")
    encoded = encode_one(codec, photo(70, 100))
    assert decode_one(codec, encoded).shape == (70, 100, 3)


def test_to_stop_and_go_on_equals_not_to_stop(source: Path, tmp_path: Path) -> None:
    recipe = embedded(write_autoencoder(tmp_path))
    whole = run_of(recipe, source, tmp_path / "whole")
    list(train(whole))
    first = run_of(recipe, source, tmp_path / "parts")
    for progress in (steps := train(first)):
        if progress.step == 3:
            steps.close()
    second = run_of(recipe, source, tmp_path / "parts")
    list(train(second))
    for name, value in whole.task.generator.state_dict().items():  # the codebooks, too
        assert torch.equal(value, second.task.generator.state_dict()[name]), name


def test_stable_diffusion_becomes_weights_that_code(
    source: Path, tmp_path: Path, parts: Mapping[str, Path]
) -> None:
    shape = shape_in(parts["unet"])
    recipe = foundation(shape)
    run = run_of(recipe, source, tmp_path, parts)
    begun = run.task.generator.state_dict()
    before = {name: value.clone() for name, value in begun.items()}
    steps = list(train(run))
    assert {"v", "lpips", "norm"} <= steps[0].terms.keys()
    changed = {name for name, value in begun.items() if not torch.equal(value, before[name])}
    for part in ("rates.0.hyper.", "rates.0.vq.codebook", "unet.conv_in.", "unet.mid_block."):
        assert any(name.startswith(f"network.{part}") for name in changed), part

    file = export(recipe, run)
    files = [file, parts["autoencoder-kl"], parts["text-encoder"]]
    weights = {sha256(one.read_bytes()): one for one in files}
    params: dict[str, Param] = {
        **PARAMS, "latents": "stable-diffusion", "shrink": 2, "codes": 256, "levels": "scaled-linear",
        "spacing": "leading",
    }  # fmt: skip
    codec = load_perco(CodecSpec("perco", 1, params, tuple(weights)), weights, "cpu")
    encoded = encode_one(codec, photo(70, 100))
    assert decode_one(codec, encoded).shape == (70, 100, 3)


def test_what_is_frozen_is_where_the_batch_is(
    tmp_path: Path, parts: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perco, "autocast", lambda _: nullcontext())  # which knows no `meta`
    captions = torch.from_numpy(np.tile(to_letters("a cat"), (2, 1)))
    batch = {"target": torch.zeros(2, 3, 64, 64), "caption": captions}
    for recipe in (embedded(write_autoencoder(tmp_path)), foundation(shape_in(parts["unet"]))):
        assert left_behind(recipe.task(parts), batch) == []


def test_a_picture_smaller_than_a_cell_is_left_out_of_the_fit(tmp_path: Path) -> None:
    source = write_photographs(tmp_path)
    Image.new("RGB", (20, 40)).save(source / "icon.png")
    run = run_of(embedded(write_autoencoder(tmp_path)), source, tmp_path / "run")
    assert isinstance(run.task, PercoTask)
    assert isinstance(run.task.generator, Trained)
    for number in range(2):
        found = all_indices(run.task.generator.network, number, run.task.space, run.feed, 9)
        assert len(found) == len(run.feed.photos) - 1
    run.out.mkdir(exist_ok=True)
    fitted(run, steps=5)


def test_training_begins_with_the_checkpoint_of_the_same_rate(
    source: Path, tmp_path: Path, parts: Mapping[str, Path]
) -> None:
    shape = shape_in(parts["unet"])
    task = foundation(shape).task(parts)
    assert isinstance(task, PercoTask)
    other = foundation(replace(shape, rates=(RATES["0.0019"],))).task(parts)
    assert isinstance(other, PercoTask)
    first, second = task.generator.network.state_dict(), other.generator.network.state_dict()
    assert torch.equal(first["unet.conv_in.weight"], second["unet.conv_in.weight"])
    assert not torch.equal(first["rates.0.vq.inward.weight"], second["rates.0.vq.inward.weight"])


def test_training_begins_with_a_published_unet_that_sees_no_hyper_latent_yet(
    tmp_path: Path, parts: Mapping[str, Path]
) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    shape = shape_in(parts["unet"])
    network = Perco(shape)
    tensors = {
        name.removeprefix("unet."): value.contiguous()
        for name, value in network.state_dict().items()
        if name.startswith("unet.")
    }
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, : shape.latent].contiguous()
    from safetensors.torch import save_file

    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text("{}")
    task = foundation(shape).task({**parts, "unet": folder})
    assert isinstance(task, PercoTask)
    conv = task.generator.network.state_dict()["unet.conv_in.weight"]
    assert torch.equal(conv[:, : shape.latent], tensors["conv_in.weight"])
    assert not bool(conv[:, shape.latent :].any())
    del tensors["conv_out.bias"]
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"another UNet than this recipe's: unet.conv_out.bias, 1 in all"):
        foundation(shape).task({**parts, "unet": folder})


class _Line:
    """A `Task` of one weight, with no randomness: what its parts add up to is known."""

    def __init__(self) -> None:
        self.generator = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.generator.weight, 0.5)
        self.critic = None

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        return batch

    def generated(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return batch["target"]

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        loss = (self.generator.weight * batch["x"]).square().mean()
        return Step(loss, {"loss": float(loss.detach())})

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return None

    def validated(self, network: torch.nn.Module, batch: Batch) -> dict[str, float]:
        return {}


def test_gradients_of_parts_add_up_to_that_of_the_batch(source: Path, tmp_path: Path) -> None:
    slopes, told = [], []
    for parts in (1, 2, 4):
        run = line_run(source, tmp_path, parts)
        told.append(run.advance({"x": np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)}))
        weight = run.task.generator.get_parameter("weight")
        assert weight.grad is not None
        slopes.append(float(weight.grad))
    # 2 * 0.5 * mean of the squares
    assert slopes == pytest.approx([0.075] * 3, rel=1e-5)
    assert [one["loss"] for one in told] == pytest.approx([0.25 * 0.075] * 3, rel=1e-5)
    with pytest.raises(ValueError, match="4 crops in 3 parts"):
        line_run(source, tmp_path, 3)


def line_run(source: Path, out: Path, parts: int) -> Run:
    feed = Feed(locate(str(source)), tuple(list_photos(locate(str(source)))), PercoCrops(64), 64, 4)
    schedule = Schedule(steps=3, parts=parts, clip=100.0)
    return Run(_Line(), feed, schedule, out, torch.device("cpu"))


def test_a_batch_falls_into_equal_parts() -> None:
    found = list(in_parts({"a": np.arange(6).reshape(6, 1), "b": np.arange(6)}, 3))
    assert [part["b"].tolist() for part in found] == [[0, 1], [2, 3], [4, 5]]
    assert [part["a"].shape for part in found] == [(2, 1)] * 3


@pytest.mark.parametrize(
    "caption", ["", "A cat.", "Zürich, «é»", "a" * CAPTION_BYTES, "é" * CAPTION_BYTES, "x" + "é" * 400]
)
def test_captions_travel_as_letters(caption: str) -> None:
    found = from_letters(torch.from_numpy(to_letters(caption)))
    assert caption.startswith(found)
    assert len(found.encode()) >= min(len(caption.encode()), CAPTION_BYTES - 1)


def test_a_tenth_of_the_captions_is_dropped(tmp_path: Path) -> None:
    task = embedded_task(TINY, PercoWeights(), write_autoencoder(tmp_path))
    letters = torch.from_numpy(np.tile(to_letters("a cat"), (400, 1)))
    batch = task.prepared({"target": torch.zeros(400, 3, 32, 32), "caption": letters}, _seeded(1))
    empty = (batch["tokens"][:, 1:] == 0).all(1).float().mean()
    assert 0.05 < float(empty) < 0.16


@pytest.mark.parametrize(
    ("shrink", "parameters"), [(1, 4_080_128), (2, 4_963_328), (4, 4_983_296), (8, 5_868_032)]
)
def test_the_hyper_encoder_has_the_papers_size(shrink: int, parameters: int) -> None:
    encoder = HyperEncoder(shrink)
    # 1/2 and 1/4 by hand: 4,080,128 and one or two of the 24 more 192 x 192 matrices of a 5x5 convolution.
    more = {1: 0, 2: 24 * 192 * 192, 4: 2 * 24 * 192 * 192, 8: 2 * 24 * 192 * 192 + 24 * 4 * 192}
    assert sum(one.numel() for one in encoder.parameters()) == 4_080_128 + more[shrink]
    assert shrink in (2, 4) or 4_080_128 + more[shrink] == parameters
    assert encoder(torch.zeros(1, 4, 16, 24)).shape == (1, 320, 16 // shrink, 24 // shrink)


def test_codes_move_to_what_falls_to_them_and_none_stays_unused() -> None:
    torch.manual_seed(0)
    vq = CosineVQ(2, 2, 2)
    with torch.no_grad():
        vq.inward.weight.copy_(torch.eye(2))
        vq.inward.bias.zero_()
        # The first code is nearer to all there is: the other one would never be asked for.
        vq.codebook.copy_(torch.tensor([[0.6, 0.8], [-1.0, 0.0]]))
        vq.seen.copy_(torch.tensor([16.0, 16.0]))
        vq.sums.copy_(16 * vq.codebook)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None].repeat(8, 1, 1, 1)
    assert not bool(vq.indices(z).any())
    for step in range(80):
        vq(z + 0.01 * torch.randn(z.shape, generator=_seeded(step)), _seeded(step))
    indices = vq.indices(z)[:2].flatten()
    assert sorted(indices.tolist()) == [0, 1]
    assert torch.allclose(vq.codebook[indices], z[:2, :, 0, 0], atol=0.02)
    assert perplexity(vq.seen) == pytest.approx(2, abs=0.05)


def test_codes_learn_nothing_of_what_is_not_finite() -> None:
    torch.manual_seed(0)
    rate = Perco(TINY).rate(0)
    latents = torch.randn(2, TINY.latent, 4, 4)
    quantised(rate, latents, _seeded(0))
    before = {name: value.clone() for name, value in rate.vq.state_dict().items()}
    latents[0, 0, 0, 0] = torch.nan
    quantised(rate, latents, _seeded(1))
    for name, value in rate.vq.state_dict().items():
        assert torch.equal(value, before[name]), name
    quantised(rate, torch.randn(2, TINY.latent, 4, 4), _seeded(2))
    assert not torch.equal(rate.vq.sums, before["sums"])


def test_slopes_go_through_the_quantiser() -> None:
    torch.manual_seed(0)
    vq = CosineVQ(8, 4, 3)
    z = torch.randn(1, 4, 3, 3, requires_grad=True)
    z_hat, indices = vq(z)
    assert torch.allclose(z_hat, vq.embedded(indices), atol=1e-6)
    z_hat.square().sum().backward()
    assert z.grad is not None
    assert bool((z.grad.abs().sum(1) > 0).all())
    before = vq.codebook.clone()
    vq(z)
    assert torch.equal(vq.codebook, before)  # without randomness codes do not learn


def test_lpips_is_for_rates_above_a_twentieth_of_a_bit() -> None:
    assert {rate for rate in RATES if weights_of_rate(rate).lpips} == {"0.0507", "0.0937", "0.1250"}
    for rate in RATES:
        recipe = find_recipe(f"perco-sd-{rate}")
        assert recipe.parts == PARTS
        assert recipe.schedule.parts * 4 == recipe.batch == 20


def test_a_convolution_is_widened_with_nothing() -> None:
    weight = torch.ones(2, 3, 3, 3)
    wide = widened(weight, 5)
    assert torch.equal(wide[:, :3], weight)
    assert wide.shape == (2, 5, 3, 3)
    assert not bool(wide[:, 3:].any())


def test_the_networks_of_the_embedded_recipe_are_as_large_as_told() -> None:
    recipe = find_recipe("perco-tiny")
    generator = Trained(shape_of(recipe.shape))
    assert sum(one.numel() for one in generator.network.parameters()) < 7.5e6


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
