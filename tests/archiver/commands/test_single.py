"""`archiver export` and `decode`: from an archive to a file, and from there to the pixels that restore gives."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.single_image import caption_table, pack, unpack
from manifests.records import EncodedImage
from manifests.storage import locate
from pipelines.images import read_provenance
from tests.archives import build, encoded, small_pictures
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


@pytest.fixture
def exported(shared: Path, tmp_path: Path) -> Path:
    succeed("export", shared, KEY, tmp_path / "exported.ar1")
    return tmp_path / "exported.ar1"


@pytest.mark.parametrize("verb", ["export", "decode"])
@pytest.mark.parametrize(
    ("name", "words"), [("there", "File exists"), ("no/x", "Not a directory"), ("there/x", "Not a directory")]
)
def test_what_cannot_be_written_is_told_before_anything_is_decoded(
    shared: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, verb: str, name: str, words: str
) -> None:
    folder = exported.parent
    (folder / "there").write_bytes(b"mine")
    (folder / "link").symlink_to("nowhere")
    monkeypatch.setattr("archiver.codecs.load_codec", None)
    source = (shared, KEY) if verb == "export" else (exported,)
    told = folder / name if name == "there" else (folder / name).parent
    assert refuse(verb, *source, folder / name) == f"archiver {verb}: {told}: {words}"
    assert refuse(verb, *source, folder / "link") == f"archiver {verb}: {folder / 'link'}: File exists"
    assert (folder / "there").read_bytes() == b"mine"
    assert sorted(os.listdir(folder)) == ["exported.ar1", "link", "there"]


@pytest.mark.parametrize("verb", ["export", "decode"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing_and_names_the_file(
    shared: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, verb: str, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = (shared, KEY) if verb == "export" else (exported,)
    monkeypatch.setattr(os, call, full)
    file = exported.parent / "new"
    assert refuse(verb, *source, file) == f"archiver {verb}: {file}: No space left on device"
    assert os.listdir(exported.parent) == ["exported.ar1"]


def test_files_are_written_where_they_are_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    (exported.parent / "~").mkdir()
    for name in ("x.png", "~/x.png"):
        succeed("decode", exported.name, name)
        assert (exported.parent / name).exists()


def test_a_long_caption_comes_back(tmp_path: Path) -> None:
    (record,) = encoded(small_pictures(1), [KEY])
    assert record.image is not None
    image = replace(record.image, caption="a cat " * 5000)
    build(locate(str(tmp_path / "archive")), [replace(record, image=image)])
    succeed("export", tmp_path / "archive", KEY, tmp_path / "x")
    assert unpack((tmp_path / "x").read_bytes(), caption_table()) == (image, record.spec)


def test_wrong_keys_and_files_are_told(shared: Path, tmp_path: Path) -> None:
    assert "cannot export 'no.jpg': not in the archive" in refuse("export", shared, "no.jpg", tmp_path / "x")
    (tmp_path / "x").write_bytes(b"GIF89a")
    assert "x: not an exported image: begins with 47 49 46 38" in refuse(
        "decode", tmp_path / "x", tmp_path / "y"
    )


def test_a_spec_of_no_preset_is_told(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pack(EncodedImage(b"", None, 1, 1), "00" * 8, caption_table()))
    assert "name the archive with --archive" in refuse("decode", tmp_path / "x", tmp_path / "y")
