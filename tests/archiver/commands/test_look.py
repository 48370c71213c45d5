"""`archiver ls`, `failures`, `codecs` and `doctor`."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from typer.main import get_command

from archiver.cli import app
from archiver.presets import DEFAULT, PRESETS
from pipelines.doctor import UNSAFE
from pipelines.select import FAILURES, ROWS
from tests.careless_s3 import Faults, careless_s3
from tests.command_line import objects, run, succeed
from tests.photos import CAPTIONS


def test_ls(shared: Path) -> None:
    lines = succeed("ls", shared).splitlines()
    assert lines[0].split() == ["key", "pixels", "source", "bits", "bpp", "codec", "caption"]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "animals/cat.jpg",
        "people/astronaut.jpg",
        "table/coffee.jpg",
    ]
    assert lines[1].endswith(CAPTIONS["animals/cat.jpg"])
    assert lines[1].split()[1:4] == ["226", "x", "150"]
    assert re.fullmatch(r"3 images: [\d.]+ kB at the source, [\d.]+ kB here", lines[-1])


def test_ls_by_sql(shared: Path) -> None:
    (row,) = objects(succeed("ls", shared, "--where", "caption like '%cat%' and width > 100", "--json"))
    assert row["key"] == "animals/cat.jpg"
    assert row["bpp"] == pytest.approx(8 * int(str(row["bitstream_bytes"])) / (226 * 150))
    assert set(row) >= {
        "key",
        "caption",
        "width",
        "height",
        "source_bytes",
        "bitstream_bytes",
        "bpp",
        "codec",
        "run",
    }
    assert succeed("ls", shared, "--where", "width > 1000000") == "No such images.\n"
    assert succeed("ls", shared, "--where", "width > 1000000", "--json") == ""
    assert [row["key"] for row in objects(succeed("ls", shared, "--limit", 2, "--json"))] == [
        "animals/cat.jpg",
        "people/astronaut.jpg",
    ]


def test_failures(shared: Path) -> None:
    (row,) = objects(succeed("failures", shared, "--json"))
    assert row["key"] == "animals/torn.jpg"
    assert str(row["failure"]).startswith("damaged image: JPEG")
    lines = succeed("failures", shared).splitlines()
    assert lines[1].startswith("animals/torn.jpg ")
    assert lines[-1] == "1 failure"
    assert succeed("failures", shared, "--where", "key like 'table/%'") == "No failures.\n"


@pytest.mark.parametrize(("verb", "columns"), [("ls", ROWS), ("restore", ROWS), ("failures", FAILURES)])
def test_help_names_the_columns_of_the_verb(verb: str, columns: pa.Schema) -> None:
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    (where,) = [option for option in command.params if option.name == "where"]
    assert f"over {', '.join(columns.names)}" in where.help.partition(";")[0]


def test_codecs() -> None:
    found = json.loads(succeed("codecs", "--json"))
    assert {preset["name"] for preset in found} == {preset.name for preset in PRESETS}
    assert [preset["name"] for preset in found if preset["default"]] == [DEFAULT]
    assert [preset["bpp"] for preset in found] == sorted(preset["bpp"] for preset in found)
    assert {preset["family"] for preset in found} >= {"avif"}
    lines = succeed("codecs").splitlines()
    assert len(lines) == len(PRESETS) + 2
    assert any(line.startswith(f"{DEFAULT} *") for line in lines)


def test_doctor(tmp_path: Path) -> None:
    lines = succeed("doctor", tmp_path / "fresh").splitlines()
    assert all(line.startswith("ok ") for line in lines[:-2])
    assert lines[-1] == f"{tmp_path}/fresh: all that archives rely on holds"
    assert not (tmp_path / "fresh").exists()
    assert json.loads(succeed("doctor", tmp_path / "fresh", "--json"))["ok"] is True


def test_doctor_says_what_is_unsafe() -> None:
    with careless_s3(Faults(honours_condition=False)) as server:
        words = [f"--archive-option={name}={value}" for name, value in server.options.items()]
        result = run("doctor", "s3://bucket/archive", *words)
        assert result.exit_code == 1
        assert UNSAFE in result.stdout
        assert json.loads(run("doctor", "s3://bucket/archive", *words, "--json").stdout)["ok"] is False
