"""The shared autoencoder: its two trainings, and tiles that equal the whole."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from archiver.codecs import autoencoder as module
from archiver.codecs.autoencoder import Autoencoder, decoded_levels, encoded_latents, load_autoencoder
from archiver.codecs.gan_networks import Shape
from archiver.training.autoencoder import AutoencoderTask, fitted
from archiver.training.loop import train
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe, export, start
from archiver.training.run import Schedule, tensors_of
from archiver.training.stream import PlainCrops, block_of
from manifests.storage import locate
from tests.meta_device import left_behind
from tests.samples import photograph
from tests.tiny_training import write_photographs

SHAPE = Shape(channels=16, width=8, blocks=1)
SCHEDULE = Schedule(steps=3, warm_up=2, cool_down=2, check_steps=2, save_seconds=600)
FIRST = Recipe(
    "first",
    task=lambda _: AutoencoderTask(SHAPE, None),
    crops=PlainCrops(64),
    crop=64,
    batch=4,
    schedule=SCHEDULE,
    shape=asdict(SHAPE),
    network=fitted,
)
SECOND = Recipe(
    "second",
    task=lambda parts: AutoencoderTask(
        SHAPE, Weights(dists_from=0, critic_from=1, dists_side=32), parts["autoencoder-mse"]
    ),
    crops=PlainCrops(64),
    crop=64,
    batch=4,
    schedule=SCHEDULE,
    shape=asdict(SHAPE),
    network=fitted,
    parts=("autoencoder-mse",),
)


def test_the_second_training_begins_where_the_first_ended(tmp_path: Path) -> None:
    source = locate(str(write_photographs(tmp_path)))
    first = start(FIRST, source, tmp_path / "1", torch.device("cpu"))
    list(train(first))
    file = export(FIRST, first)
    latents = load_autoencoder(file, torch.device("cpu")).encode(
        tensors_of(block_of(first.feed, 0), first.device)["target"]
    )
    assert latents.mean((0, 2, 3)).abs().max() < 0.5
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.5
    second = start(SECOND, source, tmp_path / "2", torch.device("cpu"), parts={"autoencoder-mse": file})
    begun = second.task.generator.state_dict()
    for name, value in first.averaged().state_dict().items():
        assert torch.equal(begun[name].half(), value.half()), name
    terms = [progress.terms for progress in train(second)]
    assert {"l1", "lpips", "dists", "adversarial"} <= set(terms[-1])


def test_parts_are_named_and_known(tmp_path: Path) -> None:
    source = locate(str(write_photographs(tmp_path)))
    with pytest.raises(ValueError, match="builds on nothing, not on layered"):
        start(FIRST, source, tmp_path / "1", torch.device("cpu"), parts={"layered": tmp_path / "x"})
    absent = replace(SECOND, parts=("layered-1",))
    with pytest.raises(ValueError, match="builds on layered-1: --part layered-1=FILE"):
        start(absent, source, tmp_path / "2", torch.device("cpu"))


@pytest.mark.parametrize("weights", [None, Weights()])
def test_what_judges_is_where_the_batch_is(weights: Weights | None) -> None:
    assert left_behind(AutoencoderTask(SHAPE, weights), {"target": torch.zeros(1, 3, 64, 64)}) == []


def test_tiles_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Autoencoder(Shape(channels=16, width=8, blocks=6)).eval().requires_grad_(False)
    pixels_hwc = np.ascontiguousarray(photograph("coffee")[:320, :480])
    whole = encoded_latents(network, pixels_hwc)
    made = decoded_levels(network, whole, b"seed")
    assert made.shape == pixels_hwc.shape
    assert not np.array_equal(made, decoded_levels(network, whole, b"other"))
    monkeypatch.setattr(module, "TILE", 4)
    assert torch.allclose(encoded_latents(network, pixels_hwc), whole, atol=1e-4)
    # Sums come in another order: a level that lay on the edge may round to its neighbour.
    assert np.abs(decoded_levels(network, whole, b"seed").astype(int) - made).max() <= 1
