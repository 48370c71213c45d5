"""Training that stops and goes on, on real photographs at a tiny size."""

import json
import math
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import Shape
from archiver.codecs.networks import load_network
from archiver.training import context_fit, layered
from archiver.training.layered import LayeredCrops, LayeredTask
from archiver.training.loop import train
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe, export, start
from archiver.training.run import CHECKPOINT, MOST_SKIPPED, Run
from archiver.training.stream import Feed, block_of
from archiver.training.task import Batch, Step
from manifests.storage import locate
from tests.tiny_training import SHAPE, TINY, TOY, ToyTask, weights_of, write_photographs


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


def run_of(source: Path, out: Path, recipe: Recipe = TINY) -> Run:
    return start(recipe, locate(str(source)), out, torch.device("cpu"))


def check_same(first: Run, second: Run) -> None:
    """That both have the same weights."""
    assert first.step == second.step
    expected, found = weights_of(first), weights_of(second)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def test_to_stop_and_go_on_equals_not_to_stop(source: Path, tmp_path: Path) -> None:
    whole = run_of(source, tmp_path / "whole")
    assert [p.step for p in train(whole) if p.kind == "check"] == [4]
    for last in (3, 6):
        parts = run_of(source, tmp_path / "parts")
        for progress in (steps := train(parts)):
            if progress.step == last:
                steps.close()
        assert parts.step == last
    check_same(whole, parts)


class Stopped(Exception):
    """Comes within a step."""


def test_what_stops_within_a_step_leaves_the_state_before_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = run_of(source, tmp_path / "whole", TOY), run_of(source, tmp_path / "parts", TOY)
    list(train(whole))

    def stop(self: Run) -> None:  # the optimiser has stepped, the average has not
        if self.step == 3:
            raise Stopped
        average(self)

    average = Run._average
    with monkeypatch.context() as patched:
        patched.setattr(Run, "_average", stop)
        with pytest.raises(Stopped):
            list(train(parts))
    parts = run_of(source, tmp_path / "parts", TOY)
    assert [progress.step for progress in train(parts)] == [4, 5, 6]
    check_same(whole, parts)


def test_a_signal_lets_the_step_under_way_end(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int, frame: FrameType | None) -> None:
        raise Stopped

    def terminated(self: Run) -> None:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        average(self)

    whole, parts = run_of(source, tmp_path / "whole", TOY), run_of(source, tmp_path / "parts", TOY)
    list(train(whole))
    average, before = Run._average, signal.signal(signal.SIGTERM, stop)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Run, "_average", terminated)
            with pytest.raises(Stopped):
                list(train(parts))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert parts.step == 4
    parts = run_of(source, tmp_path / "parts", TOY)
    assert [progress.step for progress in train(parts)] == [5, 6]
    check_same(whole, parts)


def poisoned(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Makes the toy's loss infinite at these steps, counted from 0."""
    learn = ToyTask.generator_loss

    def loss(self: ToyTask, batch: Batch, step: int, random: torch.Generator) -> Step:
        made = learn(self, batch, step, random)
        return Step(made.loss * math.inf, {"loss": math.nan}) if step in steps else made

    monkeypatch.setattr(ToyTask, "generator_loss", loss)


def test_a_step_without_a_finite_gradient_is_skipped_and_logged_as_null(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, range(3, 4))
    recipe = replace(TOY, schedule=replace(TOY.schedule, log_steps=1))
    list(train(run_of(source, tmp_path, recipe)))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    terms = [json.loads(line, parse_constant=pytest.fail)["terms"] for line in lines]
    assert [term["loss"] is None for term in terms] == [False, False, False, True, False, False]
    assert terms[3]["norm"] is None


def test_a_run_that_only_skips_ends_and_keeps_what_was_good(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, range(3, 500))
    recipe = replace(TOY, schedule=replace(TOY.schedule, steps=500))
    with pytest.raises(
        ValueError, match=f"100 steps in a row, up to step {3 + MOST_SKIPPED}, without a finite"
    ):
        list(train(run_of(source, tmp_path, recipe)))
    run = run_of(source, tmp_path, recipe)
    run.begin()
    assert run.step == 3


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named(source: Path, tmp_path: Path, share: float) -> None:
    run = run_of(source, tmp_path, TOY)
    run.save()
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{CHECKPOINT} is damaged \(.+\): remove it to begin anew"):
        run.begin()


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(source: Path, tmp_path: Path) -> None:
    run = run_of(source, tmp_path, TOY)
    run.save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"{CHECKPOINT} cannot be written: .*File too large"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]
    assert (tmp_path / CHECKPOINT).read_bytes() == before


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
    without_critic = Run(ToyTask(), run.feed, run.schedule, tmp_path, run.device)
    with pytest.raises(ValueError, match="holds other networks: 2, not 1"):
        without_critic.load(tmp_path / CHECKPOINT)
    torch.save({"seed": 1, "weights": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no checkpoint of a training: it has no 'modules'"):
        other.load(tmp_path / "other.pt")


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
