"""The README's promises: its commands run, its Python runs, its names exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from archiver.cli import app
from archiver.presets import DEFAULT, PRESETS
from tests.photos import write_photos

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(
    r"## ([^\n]+)\n(?:(?!\n## ).)*?```(\w*)\n(.*?)```", README, re.DOTALL
)  # heading, language, text


def block(heading: str) -> str:
    (found,) = [text for title, _, text in BLOCKS if title == heading]
    return str(found)


def commands(text: str) -> list[list[str]]:
    """The words of each `archiver` command, without the name."""
    return [
        shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("archiver ")
    ]


def test_the_blocks_are_found() -> None:
    assert [title for title, language, _ in BLOCKS if language] == [
        "Two commands", "On a folder", "From S3, on a machine or a cluster", "In Python"
    ]  # fmt: skip
    assert len(commands(README)) >= 9


@pytest.mark.parametrize("words", commands(README), ids=" ".join)
def test_every_command_is_one_that_can_be_typed(words: list[str]) -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    verbs[words[0]].make_context(words[0], words[1:]).close()


def test_the_commands_on_a_folder_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    for words in commands(block("On a folder")):
        words = [*words, "--workers", "0"] if words[0] == "encode" else words  # Ray takes seconds to start
        result = CliRunner().invoke(app, words)
        assert result.exit_code == (1 if words[0] == "encode" else 0), result.output  # one photo is torn
    assert [path.name for path in (tmp_path / "restored").rglob("*.png")] == ["cat.png"]

    exec(compile(block("In Python"), "README.md", "exec"), {})
    assert [path.name for path in tmp_path.glob("*.png")] == ["animals-cat.jpg.png"]


def test_names_are_those_of_the_program() -> None:
    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    told = set(re.findall(r"^\| `archiver (\w+)", README, re.MULTILINE))
    assert told <= verbs
    assert told >= {"encode", "restore", "ls", "verify", "report", "failures", "codecs", "doctor"}
    presets = set(re.findall(r"^\| `([\w.-]+)`(?: \(default\))? \| [\d.]+ \|", README, re.MULTILINE))
    assert presets <= {preset.name for preset in PRESETS}
    assert f"`{DEFAULT}` (default)" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_knows_the_two_commands() -> None:
    for target in ("demo", "test"):
        assert f"make {target}" in block("Two commands")
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
