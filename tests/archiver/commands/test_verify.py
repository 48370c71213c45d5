"""`archiver verify`: intact archives, and damaged ones."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.archive import Archive
from manifests.read import read_records
from manifests.records import Record
from manifests.storage import locate
from tests.command_line import run, succeed


def test_verify_an_intact_archive(shared: Path) -> None:
    out = succeed("verify", shared, "--decode", 1)
    assert re.fullmatch(
        r"4 records in 1 part, \d+ objects, \d+\.\d kB read, "
        r"3 images decoded in 0\.\d+ s each: all intact\n",
        out,
    )
    found = json.loads(succeed("verify", shared, "--json"))
    assert (found["ok"], found["records"], found["decoded"], found["findings"]) == (True, 4, 0, [])
    assert found["decode_seconds"] is None


def test_verify_names_what_is_damaged(shared: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(shared, archive)
    (part,) = (path for path in archive.glob("images/2*/*.parquet"))
    content = bytearray(part.read_bytes())
    bitstream = content.index(_bitstream(shared, "people/astronaut.jpg"))
    content[bitstream + 100] ^= 1
    part.write_bytes(content)
    result = run("verify", archive)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"damaged     images/{part.parent.name}/{part.name}: ")
    assert lines[1].startswith("damaged     people/astronaut.jpg: ")
    assert lines[-1].endswith("2 things damaged or missing")
    found = json.loads(run("verify", archive, "--json").stdout)
    assert found["ok"] is False
    assert {finding["kind"] for finding in found["findings"]} == {"damaged"}
    restored = run("restore", archive, tmp_path / "out", "--json")
    assert restored.exit_code == 1
    assert json.loads(restored.stdout)["written"] == 2


def damage_of(archive: Path) -> list[tuple[str, str]]:
    result = run("verify", archive, "--json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)["findings"]
    return [(one["name"], one["words"]) for one in findings if one["kind"] == "damaged"]


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"[" * 100_000])
def test_what_is_no_spec_is_named_and_harms_no_row(shared: Path, tmp_path: Path, content: bytes) -> None:
    archive = shutil.copytree(shared, tmp_path / "archive")
    name = f"specs/{hashlib.sha256(content).hexdigest()[:16]}.json"
    (archive / name).write_bytes(content)
    ((found, words),) = damage_of(archive)
    assert found == name
    assert words.startswith("a codec spec ")
    assert succeed("ls", archive) == succeed("ls", shared)


def test_a_plan_of_a_newer_program_is_named(shared: Path, tmp_path: Path) -> None:
    archive = shutil.copytree(shared, tmp_path / "archive")
    (plan,) = archive.glob("runs/*/plan.parquet")
    table = pq.read_table(plan)
    told = json.loads(table.schema.metadata[b"archiver"]) | {"colour": "red"}
    newer = archive / "runs" / "new"
    newer.mkdir()
    pq.write_table(table.replace_schema_metadata({b"archiver": json.dumps(told)}), newer / "plan.parquet")
    content = (newer / "plan.parquet").read_bytes()
    named = newer.rename(archive / "runs" / f"20300101T000000-{hashlib.sha256(content).hexdigest()[:10]}")
    ((found, words),) = damage_of(archive)
    assert found == f"runs/{named.name}/plan.parquet"
    assert "says ['colour'], which only a newer program knows" in words


def test_what_is_no_summary_is_named(shared: Path, tmp_path: Path) -> None:
    archive = shutil.copytree(shared, tmp_path / "archive")
    (summary,) = archive.glob("runs/*/summary-*.json")
    content = json.dumps(json.loads(summary.read_bytes()) | {"objects": []}).encode()
    summary.unlink()
    (summary.parent / f"summary-{hashlib.sha256(content).hexdigest()[:16]}.json").write_bytes(content)
    ((found, words),) = damage_of(archive)
    assert found.startswith(f"runs/{summary.parent.name}/summary-")
    assert words.startswith("a summary says objects []")


def _bitstream(archive: Path, key: str) -> bytes:
    found = Archive(locate(str(archive)))
    (part,) = found.parts.values()
    (record,) = read_records(found.store, part, frozenset([key]))
    assert isinstance(record, Record)
    assert record.image is not None
    return record.image.bitstream
