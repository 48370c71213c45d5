"""The command line as a whole: what there is, how fast it is said, and how wrong input is met."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

import archiver
from tests.command_line import refuse, run, succeed
from tests.servers import free_port

VERBS = ("encode", "restore", "ls", "verify", "report", "failures", "codecs", "doctor")


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
    """Against what its libraries take to load: seconds depend on the machine, and on who else is at work on it."""
    words = [verb] if verb == "--help" else [verb, str(shared)]
    libraries = "import typer, rich.progress, fsspec, pyarrow.compute, pyarrow.parquet, deltalake"
    loaded, best = (
        min(_cpu_seconds([sys.executable, *command]) for _ in range(3))
        for command in (["-c", libraries], ["-m", "archiver", *words])
    )
    assert best < 3 * loaded


def _cpu_seconds(command: Sequence[str]) -> float:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


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
    for device in ("foo", "cuda:99"):
        told = refuse("train", "layered", source, "--out", tmp_path / "out", "--device", device)
        assert told.startswith(f"archiver train: --device '{device}': ")
        assert told.endswith("; expected one of this machine's, as cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "x"], "Missing argument 'ARCHIVE'"),
        (["encode", "x", "y", "--workers", "-1"], "greater than or equal to 0"),
        (["encode", "x", "y", "--captions", "perhaps"], "'perhaps' is not one of"),
        (["encode", "x", "y", "--captions", "sidecar", "--caption-table", "t"], "with --captions table"),
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
