"""SIGTERM while `archiver encode` starts: at any moment it ends as shells expect, and nothing is lost."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.storage import locate
from tests.sources import check_complete, fill

pytestmark = pytest.mark.chaos

IMAGES = 40


def end_of(command: list[str], delay: float) -> tuple[int, str, str]:
    """Exit code as shells count it, stdout, stderr; of a command that is terminated `delay` seconds after its start."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    # Before Python has run its first line, the signal itself ends the process: shells say 143 all the same.
    return process.returncode if process.returncode >= 0 else 128 - process.returncode, out, err


@pytest.mark.parametrize("delay", [0.3, 0.7, 1.0, 1.3, 1.6, 2.0, 2.4, 2.8, 3.2, 4.0])
def test_sigterm_while_ray_starts_ends_with_143_and_a_rerun_completes(tmp_path: Path, delay: float) -> None:
    source, archive = locate(str(tmp_path / "source")), locate(str(tmp_path / "archive"))
    keys = fill(source, IMAGES)
    words = ["encode", source.url, archive.url, "--codec", "avif-0.1", "--shard-size", "1", "--json"]
    command = [sys.executable, "-m", "archiver", *words]
    code, out, err = end_of([*command, "--workers", "2"], delay)
    assert code == 143, err
    assert "Traceback" not in err
    if "archiver encode" in err:  # it had begun: it says where it stopped, also while Ray was starting
        assert err.endswith(": stopped before the end; the same command goes on from here\n")
        assert json.loads(out)["complete"] is False
    else:
        assert (out, err) == ("", "")
    again = subprocess.run([*command, "--workers", "0"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["complete"] is True
    check_complete(archive, keys)
