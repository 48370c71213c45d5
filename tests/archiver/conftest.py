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
