"""`archiver train`, of a toy."""

import json
from pathlib import Path

import pytest

from archiver.training import recipes
from archiver.training.run import CHECKPOINT
from tests.command_line import refuse, run
from tests.tiny_training import TOY, write_photographs


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "find_recipe", lambda _: TOY)


def test_it_says_that_it_fits_and_names_the_weights(tmp_path: Path) -> None:
    source, out = write_photographs(tmp_path), tmp_path / "out"
    first = run("train", "toy", source, "--out", out, "--json")
    assert (first.exit_code, first.stderr) == (0, "")
    told = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["kind"] for line in told] == ["train"] * 6 + ["weights"]
    assert told[-1] == {"kind": "weights", "step": 6, "file": str(out / "toy.safetensors")}
    again = run("train", "toy", source, "--out", out)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == f"6 steps; the weights are in {out / 'toy.safetensors'}\n"


def test_what_cannot_go_on_is_one_line(tmp_path: Path) -> None:
    source, out = write_photographs(tmp_path), tmp_path / "out"
    run("train", "toy", source, "--out", out)
    assert refuse("train", "toy", source, "--out", out, "--steps", 5).startswith(
        f"archiver train: {out / CHECKPOINT} was trained with 6 steps, not fewer (5)"
    )
    (out / CHECKPOINT).write_bytes(b"")
    assert refuse("train", "toy", source, "--out", out).startswith(
        f"archiver train: {out / CHECKPOINT} is damaged"
    )
    assert refuse("train", "toy", source, "--out", source / "out").endswith(
        "expected neither to lie within the other"
    )
