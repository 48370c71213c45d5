"""`archiver evaluate` as it is typed."""

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from archiver.commands.evaluate import evaluate
from tests.samples import photo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    Image.fromarray(photo(170, 190)).save(folder / "cat.png")
    return folder


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_document_goes_to_stdout_and_the_page_to_its_file(source: Path, tmp_path: Path) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept"
    asked = ("--codec", "avif-0.2", "--baseline", "webp", "--html", page, "--keep", kept, "--json")
    result = run(source, *asked)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    document = json.loads(result.stdout)
    assert document["pictures"] == ["cat.png"]
    assert list(document["codecs"][0]["at_equal_bytes"]) == ["webp"]
    assert page.read_text().startswith("<!doctype html>")
    assert (kept / "archives" / "avif-0.2" / "FORMAT.md").is_file()
    assert (kept / "decoded" / "avif-0.2" / "0.png").is_file()


def test_a_picture_that_cannot_be_read_is_told_by_the_exit_code(source: Path) -> None:
    (source / "torn.png").write_bytes(b"torn")
    result = run(source, "--codec", "avif-0.2", "--baseline", "webp")
    assert result.exit_code == 1
    assert "left out: torn.png: not an image" in result.stdout


@pytest.mark.parametrize("page", ["nowhere/page.html", "source", "source/cat.png/page.html"])
def test_a_page_that_cannot_be_written_is_told_before_the_work(
    source: Path, tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.commands.evaluate._evaluated", None)
    result = run(source, "--codec", "avif-0.2", "--html", tmp_path / page)
    assert isinstance(result.exception, OSError)
    assert str(tmp_path / page).startswith(str(result.exception.filename))


def test_an_unknown_preset_is_refused(source: Path) -> None:
    result = run(source, "--codec", "avif-9")
    assert isinstance(result.exception, ValueError)
    assert "avif-9" in str(result.exception)
