"""`archiver export` and `decode`: from an archive to a file, and from there to the pixels that restore gives."""

from pathlib import Path

import numpy as np
from PIL import Image

from archiver.single_image import caption_table, pack
from manifests.records import EncodedImage
from pipelines.images import read_provenance
from tests.command_line import refuse, succeed
from tests.photos import CAPTIONS

KEY = "animals/cat.jpg"


def pixels(file: Path) -> bytes:
    return np.asarray(Image.open(file).convert("RGB")).tobytes()


def test_an_exported_image_decodes_to_what_restore_gives(shared: Path, tmp_path: Path) -> None:
    file, png = tmp_path / "cat.ar1", tmp_path / "cat.png"
    assert "of which" in succeed("export", shared, KEY, file)
    succeed("decode", file, png)
    succeed("restore", shared, tmp_path / "out", "--where", f"key = '{KEY}'")
    (restored,) = (tmp_path / "out").rglob("*.png")
    assert pixels(png) == pixels(restored)
    provenance = read_provenance(png.read_bytes())
    assert provenance is not None
    assert (provenance.caption, provenance.codec) == (CAPTIONS[KEY], "avif")


def test_the_archive_gives_what_is_not_installed(shared: Path, tmp_path: Path) -> None:
    succeed("export", shared, KEY, tmp_path / "cat.ar1")
    succeed("decode", tmp_path / "cat.ar1", tmp_path / "cat.png", "--archive", shared)
    assert (tmp_path / "cat.png").exists()


def test_what_is_there_is_kept(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.ar1").write_bytes(b"mine")
    assert "File exists" in refuse("export", shared, KEY, tmp_path / "cat.ar1")
    assert (tmp_path / "cat.ar1").read_bytes() == b"mine"


def test_wrong_keys_and_files_are_told(shared: Path, tmp_path: Path) -> None:
    assert "cannot export 'no.jpg': not in the archive" in refuse("export", shared, "no.jpg", tmp_path / "x")
    (tmp_path / "x").write_bytes(b"GIF89a")
    assert "x: not an exported image: begins with 47 49 46 38" in refuse(
        "decode", tmp_path / "x", tmp_path / "y"
    )


def test_a_spec_of_no_preset_is_told(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pack(EncodedImage(b"", None, 1, 1), "00" * 8, caption_table()))
    assert "name the archive with --archive" in refuse("decode", tmp_path / "x", tmp_path / "y")
