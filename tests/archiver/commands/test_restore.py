"""`archiver restore`: which files it writes, and what it says of the others."""

import json
import re
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from archiver.cli import app
from pipelines.images import read_provenance
from tests.command_line import run, succeed
from tests.photos import CAPTIONS


def test_restore_writes_the_chosen_rows_as_marked_files(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("restore", shared, out, "--where", "caption like '%cat%' or width > 290")
    lines = succeed(*words).splitlines()
    assert re.fullmatch(rf"2 images restored to {out} in \d\.\d s: \d+ kB of png files", lines[0])
    assert len(lines) == 1
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == ["animals/cat.png", "table/coffee.png"]
    with Image.open(out / "animals/cat.png") as image:
        assert image.size == (226, 150)
    provenance = read_provenance((out / "animals/cat.png").read_bytes())
    assert provenance is not None
    assert (provenance.key, provenance.caption) == ("animals/cat.jpg", CAPTIONS["animals/cat.jpg"])


def test_restore_keeps_files_unless_told_otherwise(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/cat.jpg").write_bytes(b"mine")
    words = ("restore", shared, tmp_path, "--format", "jpeg", "--limit", 1)
    lines = succeed(*words).splitlines()
    assert lines[0].startswith(f"0 images restored to {tmp_path}")
    assert lines[1] == "  1 was there already; --overwrite replaces it"
    assert (tmp_path / "animals/cat.jpg").read_bytes() == b"mine"
    found = json.loads(succeed(*words, "--overwrite", "--json"))
    assert (found["written"], found["kept"], found["lost"], found["complete"]) == (1, 0, [], True)
    with Image.open(tmp_path / "animals/cat.jpg") as image:
        assert image.format == "JPEG"


def test_restore_counts_first(shared: Path, tmp_path: Path) -> None:
    out = succeed("restore", shared, tmp_path / "out", "--dry-run")
    assert re.fullmatch(
        r"3 images from 1 part: at most \d+\.\d+ kB in 1 request\nNothing was written\.\n", out
    )
    plan = json.loads(succeed("restore", shared, tmp_path / "out", "--dry-run", "--json"))
    assert (plan["rows"], plan["parts"], plan["requests"], plan["dollars"]) == (3, 1, 1, 0.0)
    assert not (tmp_path / "out").exists()


def test_restore_names_each_key_that_it_cannot_give(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("animals/cat.jpg\nanimals/torn.jpg\nno/such.jpg\n")
    result = run("restore", shared, tmp_path / "out", "--keys-file", tmp_path / "keys", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["written"] == 1
    assert sorted(lost["key"] for lost in found["lost"]) == ["animals/torn.jpg", "no/such.jpg"]
    complaints = sorted(result.stderr.splitlines())
    assert complaints[0].startswith(
        "archiver restore: animals/torn.jpg: it was not archived: damaged image: JPEG"
    )
    assert complaints[1:] == ["archiver restore: no/such.jpg: not in the archive"]


def test_keys_from_stdin(shared: Path, tmp_path: Path) -> None:
    words = ["restore", str(shared), str(tmp_path / "out"), "--keys-file", "-", "--json"]
    result = CliRunner().invoke(app, words, input="table/coffee.jpg\n")
    assert json.loads(result.stdout)["written"] == 1
