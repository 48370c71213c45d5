"""`archiver report`: every byte and every dollar."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import objects, refuse, run, succeed
from tests.photos import CAPTIONS


def test_report_counts_every_byte(shared: Path) -> None:
    found = json.loads(succeed("report", shared, "--json"))
    stored = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    rows = objects(succeed("ls", shared, "--json"))
    assert (found["images"], found["failures"], found["archive_bytes"]) == (3, 1, stored)
    for name in ("source_bytes", "bitstream_bytes"):
        assert found[name] == sum(int(str(row[name])) for row in rows)
    assert found["caption_bytes"] == sum(map(len, CAPTIONS.values()))
    assert found["overhead_bytes"] == stored - found["bitstream_bytes"] - found["caption_bytes"]
    assert found["pixels"] == sum(int(str(row["width"])) * int(str(row["height"])) for row in rows)
    assert found["bpp_all_in"] == pytest.approx(8 * stored / found["pixels"])
    assert found["ratio"] == pytest.approx(found["source_bytes"] / stored)


def test_every_line_of_a_report_is_quantity_times_unit_price(shared: Path) -> None:
    found = json.loads(succeed("report", shared, "--json"))
    assert {line["section"] for line in found["lines"]} == {
        "keep originals",
        "encode",
        "keep archive",
        "restore",
    }
    for line in found["lines"]:
        assert line["dollars"] == pytest.approx(line["quantity"] * line["unit_price"])
    (encoding,) = [line for line in found["lines"] if line["what"] == "encode"]
    assert encoding["quantity"] == pytest.approx(found["encode_seconds"]["cpu"] / 3600)
    assert encoding["known"] is True


def test_report_for_people(shared: Path) -> None:
    found = json.loads(succeed("report", shared, "--json"))
    out = succeed("report", shared)
    lines = [line.split() for line in out.splitlines()]
    assert ["archive", *_counts(found, "archive_bytes")] in [line[:3] for line in lines]
    assert ["in", "parts", "1"] in [line[:3] for line in lines]
    assert [line for line in lines if line[:2] == ["KEEP", "ORIGINALS"]]
    assert found["verdict"]["sentence"] in out
    assert "a million images" in out


def test_weights_are_told_apart_from_what_grows(source: Path, tmp_path: Path) -> None:
    """With the default codec, whose networks weigh more than a few images."""
    archive = tmp_path / "archive"
    run("encode", source, archive, "--workers", 0)
    found = json.loads(succeed("report", archive, "--json"))
    (weights,) = [kind["size_bytes"] for kind in found["objects"] if kind["kind"] == "weights"]
    ratio = found["source_bytes"] / (found["archive_bytes"] - weights)
    assert found["ratio"] < 1 < ratio
    assert f"{ratio:,.1f} : 1 without the weights" in succeed("report", archive)
    kept = found["verdict"]["keep_archive_month"]
    assert kept["fixed"] > 0.9 * kept["dollars"]


def _counts(found: dict[str, Any], name: str) -> list[str]:
    return [str(sum(kind["count"] for kind in found["objects"])), f"{found[name]:,}"]


def test_prices_can_be_replaced(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[classes.STANDARD]\nstorage_gb_month = 1000\n")
    found = json.loads(succeed("report", shared, "--json", "--prices", tmp_path / "mine.toml"))
    assert {line["unit_price"] for line in found["lines"] if line["unit"] == "GB-month"} == {1000}
    found = json.loads(succeed("report", shared, "--json", "--archive-class", "GLACIER_IR", "--years", 1))
    assert any("GLACIER_IR" in line["what"] for line in found["lines"])
    assert found["verdict"]["years"] == 1
    assert refuse("report", shared, "--archive-class", "COLD").startswith(
        "archiver report: storage class 'COLD', expected one of STANDARD, "
    )


def test_decoding_is_priced_with_the_seconds_that_verify_and_restore_measure(
    shared: Path, tmp_path: Path
) -> None:
    unknown = {
        line["note"] for line in json.loads(succeed("report", shared, "--json"))["lines"] if not line["known"]
    }
    assert unknown == {"unknown: verify --decode 0.01 measures it, --decode-seconds tells it here"}
    verified = json.loads(succeed("verify", shared, "--decode", 1, "--json"))["decode_seconds"]
    restored = json.loads(succeed("restore", shared, tmp_path / "out", "--json"))["decode_seconds"]
    assert 0 < min(verified, restored) < max(verified, restored) < 10
    found = json.loads(succeed("report", shared, "--decode-seconds", verified, "--json"))
    assert found["decode_seconds"] == verified
    assert all(line["known"] for line in found["lines"])
    (one,) = [line for line in found["lines"] if line["what"] == "1 image: decode"]
    assert one["dollars"] == pytest.approx(verified / 3600 * one["unit_price"])
