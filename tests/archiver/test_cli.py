"""The commands as users type them: exit codes, what is printed, what is not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import archiver
from archiver.cli import app
from archiver.console import bytes_text
from archiver.presets import DEFAULT, PRESETS
from manifests.archive import Archive
from manifests.read import read_records
from manifests.records import Record
from manifests.storage import connect, locate
from pipelines.doctor import UNSAFE
from pipelines.images import read_provenance
from tests.careless_s3 import Faults, careless_s3
from tests.photos import CAPTIONS, write_photos
from tests.servers import S3Server, free_port

VERBS = ("encode", "restore", "ls", "verify", "report", "failures", "codecs", "doctor")


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: str | Path | int) -> str:
    """What a command prints that has to end well, and to complain of nothing."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refuse(*arguments: str | Path | int) -> str:
    """The complaint of a command that has to end as wrong, in one line, with nothing on stdout."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr.rstrip("\n")


def objects(lines: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the photos, for tests that only read it."""
    folder = tmp_path_factory.mktemp("shared")
    source = write_photos(folder / "photos")
    result = run("encode", source, folder / "archive", "--captions", "sidecar", "--workers", 0)
    assert result.exit_code == 1  # one photo is torn
    return folder / "archive"


# What there is, and how fast it is said


def test_version() -> None:
    assert succeed("--version") == f"archiver {version('archiver')}\n"
    assert archiver.__version__ == version("archiver")


def test_help_names_every_verb_and_the_exit_codes() -> None:
    out = succeed("--help")
    for verb in VERBS:
        assert re.search(rf"│ {verb} ", out), verb
    assert "Exit codes: 0 all well" in out


def test_no_verb_is_wrong_usage() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.parametrize("verb", ["--help", "ls", "report", "failures", "codecs"])
def test_what_only_looks_starts_without_torch_and_ray(shared: Path, verb: str) -> None:
    words = [verb] if verb in ("--help", "codecs") else [verb, str(shared)]
    program = (
        "import sys\n"
        "from archiver.cli import app\n"
        f"app({words!r}, standalone_mode=False)\n"
        "print(sorted(m for m in ('torch', 'ray', 's3fs', 'scipy', 'pandas') if m in sys.modules), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["--help", "ls", "report"])
def test_what_only_looks_starts_fast(shared: Path, verb: str) -> None:
    """CPU seconds, best of three: the wall clock is also other people's."""
    words = [verb] if verb == "--help" else [verb, str(shared)]
    best = min(_cpu_seconds([sys.executable, "-m", "archiver", *words]) for _ in range(3))
    assert best < 1.0


def _cpu_seconds(command: Sequence[str]) -> float:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


# encode


def test_encode_says_what_it_did(source: Path, tmp_path: Path) -> None:
    result = run("encode", source, tmp_path / "archive", "--captions", "sidecar", "--workers", 0)
    assert (result.exit_code, result.stderr) == (1, "")
    first, second, third = result.stdout.splitlines()
    archived = sum((source / key).stat().st_size for key in CAPTIONS)  # without the one that failed
    assert f": {bytes_text(archived)} became " in first
    assert re.fullmatch(
        r"3 images archived in \d\.\d s: \d+\.\d kB became \d\.\d\d kB \(\d+ : 1, 0\.\d{3} bits per pixel\)",
        first,
    )
    assert second == f"1 image failed; see: archiver failures {tmp_path}/archive"
    assert third == "  4 other files left out"

    out = succeed("encode", source, tmp_path / "archive", "--captions", "sidecar", "--workers", 0)
    assert out == "Nothing to do.\n  4 images in the archive already\n  4 other files left out\n"


def test_encode_as_json_is_one_document(source: Path, tmp_path: Path) -> None:
    result = run("encode", source, tmp_path / "archive", "--workers", 0, "--json", "--codec", "avif-0.01")
    assert (result.exit_code, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert found["complete"] is True
    assert (found["images"], found["failures"], found["codec"]) == (3, 1, "avif-0.01")
    assert found["changes"]["new"] == 4
    assert found["changes"]["other"] == 4
    (run_name,) = found["runs"]
    assert (tmp_path / "archive/runs" / run_name / "plan.parquet").exists()
    assert 0 < found["bpp"] < 0.1


def test_include_exclude_and_shard_size(source: Path, tmp_path: Path) -> None:
    succeed(
        "encode", source, tmp_path / "archive", "--include", "animals/*", "--exclude", "*torn*",
        "--workers", 0, "--shard-size", 1,
    )  # fmt: skip
    (row,) = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert row["key"] == "animals/cat.jpg"


def test_failures_are_tried_again_when_asked(source: Path, tmp_path: Path) -> None:
    words = ("encode", source, tmp_path / "archive", "--workers", 0)
    assert run(*words).exit_code == 1
    assert succeed(*words).startswith("Nothing to do.")
    again = run(*words, "--retry-failures")
    assert again.exit_code == 1
    assert "  1 image tried again after a failure" in again.stdout.splitlines()


def test_dry_run_estimates_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    out = succeed("encode", source, tmp_path / "archive", "--workers", 0, "--dry-run")
    assert out.startswith("4 images to encode, ")
    assert out.endswith("Nothing was written.\n")
    found = json.loads(succeed("encode", source, tmp_path / "archive", "--workers", 0, "--dry-run", "--json"))
    assert (found["images"], found["sample_failures"]) == (4, 1)
    assert found["archive_bytes"] > 0
    assert not (tmp_path / "archive").exists()


def test_captions_from_a_table(source: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("key,caption\nanimals/cat.jpg,from the table\n")
    run("encode", source, tmp_path / "archive", "--workers", 0, "--caption-table", tmp_path / "captions.csv")
    rows = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert {row["key"]: row["caption"] for row in rows}["animals/cat.jpg"] == "from the table"


def test_encode_by_ray_actors_and_an_end_by_sigterm(source: Path, tmp_path: Path) -> None:
    """The command itself, in a process of its own: the default is Ray."""
    command = [sys.executable, "-m", "archiver", "encode", str(source), str(tmp_path / "archive"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("archive/runs/*/plan.parquet")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    found = json.loads(out)
    if found["complete"]:  # SIGTERM came after the last shard had begun
        assert process.returncode == 1
    else:
        assert process.returncode == 143
        assert (
            err.splitlines()[-1]
            == "archiver encode: stopped before the end; the same command goes on from here"
        )
    finished = subprocess.run([*command, "--workers", "0"], capture_output=True, text=True, check=False)
    assert json.loads(finished.stdout)["complete"] is True
    assert len(objects(succeed("ls", tmp_path / "archive", "--json"))) == 3


def test_from_bucket_to_bucket_and_back(s3: S3Server, tmp_path: Path) -> None:
    """Source, archive and output each with options of their own, in three buckets."""
    source, archive, output = (s3.location(name) for name in ("photos", "archive", "out"))
    for path in write_photos(tmp_path / "photos").rglob("*.*"):
        connect(source).write(path.relative_to(tmp_path / "photos").as_posix(), path.read_bytes())

    def options(side: str) -> list[str]:
        return [f"--{side}-option={name}={value}" for name, value in s3.options.items()]

    encoded = run(
        "encode", source.url, archive.url, "--captions", "sidecar", "--workers", 0, "--json",
        *options("source"), *options("archive"),
    )  # fmt: skip
    assert encoded.exit_code == 1
    assert s3.secret not in encoded.output
    found = json.loads(encoded.stdout)
    assert (found["images"], found["failures"]) == (3, 1)
    assert len(objects(succeed("ls", archive.url, "--json", *options("archive")))) == 3
    words: tuple[str | int, ...] = (
        "restore",
        archive.url,
        output.url,
        "--limit",
        2,
        "--json",
        *options("archive"),
        *options("output"),
    )
    plan = json.loads(succeed(*words, "--dry-run"))
    assert (plan["rows"], plan["requests"]) == (2, 1)
    assert 0 < plan["dollars"] < 0.001
    assert json.loads(succeed(*words))["written"] == 2
    assert sorted(entry.path for entry in connect(output).list()) == [
        "animals/cat.png",
        "people/astronaut.png",
    ]
    assert json.loads(succeed("verify", archive.url, "--json", *options("archive")))["ok"] is True
    assert json.loads(succeed("report", archive.url, "--json", *options("archive")))["images"] == 3


# restore


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


# verify


def test_verify_an_intact_archive(shared: Path) -> None:
    out = succeed("verify", shared, "--decode", 1)
    assert re.fullmatch(
        r"4 records in 1 part, \d+ objects, \d+\.\d kB read, 3 images decoded: all intact\n", out
    )
    found = json.loads(succeed("verify", shared, "--json"))
    assert (found["ok"], found["records"], found["decoded"], found["findings"]) == (True, 4, 0, [])


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


def _bitstream(archive: Path, key: str) -> bytes:
    found = Archive(locate(str(archive)))
    (part,) = found.parts.values()
    (record,) = read_records(found.store, part, frozenset([key]))
    assert isinstance(record, Record)
    assert record.image is not None
    return record.image.bitstream


# report


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


# ls, failures, codecs, doctor


def test_ls(shared: Path) -> None:
    lines = succeed("ls", shared).splitlines()
    assert lines[0].split() == ["key", "pixels", "source", "bits", "bpp", "codec", "caption"]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "animals/cat.jpg",
        "people/astronaut.jpg",
        "table/coffee.jpg",
    ]
    assert lines[1].rstrip().endswith(CAPTIONS["animals/cat.jpg"])
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


# What is wrong


def test_wrong_input_is_one_line_that_says_what_was_expected(
    source: Path, shared: Path, tmp_path: Path
) -> None:
    nowhere, archive = tmp_path / "nowhere", tmp_path / "archive"
    assert refuse("encode", nowhere, archive) == f"archiver encode: {nowhere}: No such file or directory"
    assert not archive.exists()
    assert refuse("encode", source, archive, "--codec", "best").startswith(
        "archiver encode: preset 'best', this program knows: "
    )
    assert refuse("encode", source, source / "archive").endswith("expected neither to lie within the other")
    assert refuse("encode", source, "gs://bucket/archive").startswith(
        "archiver encode: archive at gs://bucket"
    )
    for verb in ("ls", "failures", "verify", "report"):
        assert refuse(verb, nowhere) == (
            f"archiver {verb}: no archive at {nowhere}: expected a Delta Lake table below images/"
        )
    assert "No field named colour" in refuse("ls", shared, "--where", "colour = 'red'")
    assert refuse("ls", "s3://bucket/x", "--archive-option", "colour=red").startswith(
        "archiver ls: S3 option 'colour', expected one of key, secret, "
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "x"], "Missing argument 'ARCHIVE'"),
        (["encode", "x", "y", "--workers", "-1"], "greater than or equal to 0"),
        (["encode", "x", "y", "--captions", "perhaps"], "'perhaps' is not one of"),
        (["encode", "x", "y", "--captions", "sidecar", "--caption-table", "t"], "without --captions"),
        (["ls", "x", "--archive-option", "profile"], "expected NAME=VALUE"),
        (["ls", "x", "--limit", "many"], "unable to parse string as an integer"),
        (["restore", "x", "y", "--format", "bmp"], "'bmp' is not one of"),
        (["verify", "x", "--decode", "2"], "less than or equal to 1"),
        (["compress", "x"], "No such command 'compress'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_a_store_that_cannot_be_reached(tmp_path: Path) -> None:
    options = {
        "endpoint_url": f"http://127.0.0.1:{free_port()}",
        "key": "k",
        "secret": "very-secret",
        "region": "x",
    }
    words = [f"--archive-option={name}={value}" for name, value in options.items()]
    complaint = refuse("ls", "s3://bucket/archive", *words)
    assert complaint.startswith("archiver ls: ")
    assert "very-secret" not in complaint


def test_a_reader_that_has_seen_enough(shared: Path) -> None:
    """`archiver ls ARCHIVE --json | head -n 0`"""
    command = [sys.executable, "-m", "archiver", "ls", str(shared), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
