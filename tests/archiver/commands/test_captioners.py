"""`archiver encode --captions model` and `tags`: an archive whose captions were written here."""

from pathlib import Path

import pytest

from tests.archiver.captioners.tiny_models import WORDS, tiny_blip
from tests.command_line import objects, run, succeed
from tests.photos import CAPTIONS


def test_captions_by_a_model_are_a_column_that_can_be_searched(source: Path, tmp_path: Path) -> None:
    blip, archive = tiny_blip(tmp_path / "blip"), tmp_path / "archive"
    words = ("--captions", "model", "--captioner", blip, "--caption-tokens", 6, "--caption-batch", 2)
    result = run("encode", source, archive, "--codec", "avif-0.1", *words, "--workers", 0)
    assert result.exit_code == 1  # one photograph is torn
    found = {row["key"]: str(row["caption"]) for row in objects(succeed("ls", archive, "--json"))}
    assert found.keys() == CAPTIONS.keys()
    for caption in found.values():
        assert 0 < len(caption.split()) <= 6
        assert set(caption.split()) <= set(WORDS)
    key, caption = next(iter(found.items()))
    chosen = objects(succeed("ls", archive, "--where", f"caption = '{caption}'", "--json"))
    assert key in {row["key"] for row in chosen}


def test_tags_need_no_model_hub(source: Path, tmp_path: Path) -> None:
    run("encode", source, tmp_path / "archive", "--codec", "avif-0.1", "--captions", "tags", "--workers", 0)
    rows = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert "cat" in {row["key"]: str(row["caption"]) for row in rows}["animals/cat.jpg"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--captions", "model", "--captioner", "/nowhere"], "captioner /nowhere: expected a folder"),
        (["--captions", "model"], "with --captions model"),
        (["--captioner", "x"], "with --captions model"),
        (["--captions", "table"], "with --captions table"),
    ],
)
def test_a_captioner_that_is_not_there_is_told_before_anything_is_planned(
    source: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    result = run("encode", source, tmp_path / "archive", "--workers", 0, *words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "archive").exists()
