"""Photos, and an archive of them."""

from pathlib import Path

import pytest

from tests.command_line import run
from tests.photos import write_photos


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the photos, for tests that only read it."""
    folder = tmp_path_factory.mktemp("shared")
    source = write_photos(folder / "photos")
    result = run(
        "encode", source, folder / "archive", "--codec", "avif-0.1", "--captions", "sidecar", "--workers", 0
    )
    assert result.exit_code == 1  # one photo is torn
    return folder / "archive"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has imported nothing yet: the folder of weights."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # fetched weights are kept there
    return tmp_path / "data/archiver/weights"
