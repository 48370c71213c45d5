"""What a training is made from stays the same when it goes on, and what comes of it is a file for all."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from archiver.training.loop import train
from archiver.training.recipe import Recipe, export, start
from archiver.training.run import CHECKPOINT
from manifests.storage import locate
from tests.tiny_training import TOY, write_photographs

CPU = torch.device("cpu")
BUILT = replace(TOY, parts=("base",))


def stopped(source: Path, out: Path, recipe: Recipe = TOY, parts: dict[str, Path] | None = None) -> None:
    """A run that has stopped after a step."""
    steps = train(start(recipe, locate(str(source)), out, CPU, parts=parts))
    next(steps)
    steps.close()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (replace(TOY, name="other"), "recipe toy, not other"),
        (replace(TOY, crop=32), "crop 16, not 32"),
        (replace(TOY, batch=8), "batch 4, not 8"),
        (replace(TOY, schedule=replace(TOY.schedule, steps=5)), r"6 steps, not fewer \(5\)"),
        (replace(TOY, crop=32, batch=8), "crop 16, not 32; batch 4, not 8: expected the same"),
    ],
)
def test_another_training_does_not_go_on_from_a_checkpoint(
    changed: Recipe, told: str, tmp_path: Path
) -> None:
    source, out = write_photographs(tmp_path), tmp_path / "out"
    stopped(source, out)
    facts = (out / "facts.json").read_text()
    with pytest.raises(ValueError, match=rf"{CHECKPOINT} was trained with {told}"):
        stopped(source, out, changed)
    assert (out / "facts.json").read_text() == facts


def test_other_photographs_or_parts_do_not_either(tmp_path: Path) -> None:
    source, out, base = write_photographs(tmp_path), tmp_path / "out", tmp_path / "base.safetensors"
    base.write_bytes(b"base")
    stopped(source, out, BUILT, {"base": base})
    stopped(source, out, BUILT, {"base": base})
    base.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"was trained with parts {'base': '\w+'}, not {'base': '\w+'}:"):
        stopped(source, out, BUILT, {"base": base})
    base.write_bytes(b"base")
    Image.new("RGB", (64, 64)).save(source / "more.png")
    with pytest.raises(ValueError, match=r"was trained with listing \w+, not \w+:"):
        stopped(source, out, BUILT, {"base": base})
    elsewhere = source.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"was trained with source {source}, not {elsewhere};"):
        stopped(elsewhere, out, BUILT, {"base": base})


def test_a_training_may_become_longer_and_older_checkpoints_go_on(tmp_path: Path) -> None:
    source, out = write_photographs(tmp_path), tmp_path / "out"
    stopped(source, out)
    found = torch.load(out / CHECKPOINT, weights_only=True)
    for name in ("facts", "steps"):
        del found[name]
    torch.save(found, out / CHECKPOINT)
    longer = start(TOY, locate(str(source)), out, CPU, steps=8)
    assert [progress.step for progress in train(longer)] == [2, 3, 4, 5, 6, 7, 8]
    assert json.loads((out / "facts.json").read_text())["schedule"]["steps"] == 8


def test_a_run_and_its_source_lie_apart(tmp_path: Path) -> None:
    source = write_photographs(tmp_path)
    for out in (source / "out", source, tmp_path):
        with pytest.raises(
            ValueError, match=f"source {source} and --out {out}, expected neither to lie within"
        ):
            start(TOY, locate(str(source)), out, CPU)
    assert not (source / "out").exists()


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_the_weights_are_for_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    source, out = write_photographs(tmp_path), tmp_path / "out"
    before = os.umask(umask)
    try:
        stopped(source, out)
        file = export(TOY, start(TOY, locate(str(source)), out, CPU))
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert sorted(file.name for file in out.iterdir()) == [
        CHECKPOINT,
        "facts.json",
        "log.jsonl",
        "toy.safetensors",
    ]
