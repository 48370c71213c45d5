"""Training that stops and goes on, on real photographs at a tiny size."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import Shape
from archiver.codecs.networks import load_network
from archiver.training import context_fit, layered
from archiver.training.layered import LayeredCrops, LayeredTask
from archiver.training.loop import CHECKPOINT, Run, train
from archiver.training.perceptual import Weights
from archiver.training.recipe import export, start
from archiver.training.stream import Feed, block_of
from manifests.storage import locate
from tests.tiny_training import SHAPE, TINY, weights_of, write_photographs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context_fit, "FIT_STEPS", 5)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_of(source: Path, out: Path) -> Run:
    return start(TINY, locate(str(source)), out, torch.device("cpu"))


def test_to_stop_and_go_on_equals_not_to_stop(source: Path, tmp_path: Path) -> None:
    whole = run_of(source, tmp_path / "whole")
    assert [p.step for p in train(whole) if p.kind == "check"] == [4]
    for last in (3, 6):
        parts = run_of(source, tmp_path / "parts")
        for progress in (steps := train(parts)):
            if progress.step == last:
                steps.close()
        assert parts.step == last
    first, second = weights_of(whole), weights_of(parts)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_every_network_learns_and_the_export_is_the_average(source: Path, tmp_path: Path) -> None:
    run = run_of(source, tmp_path)
    before = {name: value.clone() for name, value in weights_of(run).items()}
    list(train(run))
    changed = {
        name.split(".")[0] for name, value in weights_of(run).items() if not torch.equal(value, before[name])
    }
    assert changed == {"generator", "critic", "ema"}
    network = load_network(export(TINY, run), lambda shape: Enhancer(Shape(**shape)), torch.device("cpu"))
    for name, value in network.named_parameters():
        if ".styled." in name:  # found when the training is over
            assert bool(value.any())
            continue
        torch.testing.assert_close(value.data, run.ema[f"enhancer.{name}"], rtol=1e-3, atol=1e-6)
    assert network.entropy is not None
    assert network.entropy.get_buffer("table").any()
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["licences"] == {"CC0": 3}
    assert list(tmp_path.glob("sample-*.png"))


def test_a_checkpoint_of_other_networks_is_refused(source: Path, tmp_path: Path) -> None:
    run = run_of(source, tmp_path)
    run.save()
    other = Run(
        LayeredTask(Shape(**{**SHAPE, "coarse": 16}), Weights()), run.feed, run.schedule, tmp_path, run.device
    )
    with pytest.raises(ValueError, match="other networks"):
        other.load(tmp_path / CHECKPOINT)


def test_crops_are_cut_from_the_base_where_they_are_cut_from_the_photograph(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archiver.training.photos import list_photos

    feed = Feed(
        locate(str(source)),
        tuple(list_photos(locate(str(source)))),
        LayeredCrops(64, ((4, 1.0),)),
        64,
        4,
        2,
        8,
    )
    monkeypatch.setattr(layered, "QUALITIES", {4: (60, 60)})
    block = block_of(feed, 3)
    assert block["target"].shape == (16, 64, 64, 3)
    assert block["small"].shape == (16, 16, 16, 3)
    # The base is the photograph, blurred: wherever they were cut, their means agree.
    difference = block["target"].mean((1, 2)) - block["small"].astype(float).mean((1, 2))
    assert np.abs(difference).max() < 3
    assert all(np.array_equal(block[name], block_of(feed, 3)[name]) for name in block)
    assert not np.array_equal(block["target"], block_of(feed, 4)["target"])
