"""Pictures of a training source: what is told of them, and how they are read."""

import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.training import photos
from archiver.training.photos import Photo, licences, list_photos, read_photo, shrunk
from manifests.storage import Location, connect, locate
from tests.tiny_training import write_photographs

A = Photo("a.png", None, None, None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    "told",
    [
        '\ufeff{"file": "a.png", "licence": "CC0", "caption": "One."}\n',
        '{"file": "a.png", "licence": "CC0", "caption": "One."}\r\n\r\n{"file": "b.png"}\n\n',
    ],
)
def test_lists_may_begin_with_a_mark_and_have_blank_lines(source: Path, told: str) -> None:
    source.with_suffix(".jsonl").write_bytes(told.encode())
    found = list_photos(locate(str(source)))
    assert licences(found) == {"CC0": 1, "unknown": 1}
    assert found[0].caption == "One."


def test_a_caption_may_hold_any_character(source: Path) -> None:
    caption = "a\u2028b\x85c"
    line = json.dumps({"file": "a.png", "caption": caption}, ensure_ascii=False)
    (source / "list.jsonl").write_text(line, encoding="utf-8")
    assert [photo.caption for photo in list_photos(locate(str(source)))] == [caption, None]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"path": "a.png"}', 'no object with a `file`, but {"path": "a.png"}'),
        ("[1]", "no object with a `file`, but"),
        ("not json", "Expecting value"),
        ("\udcff", "can't decode"),
        ('{"file": "a.png", "licence": ["CC0"]}', r"licence \['CC0'\], expected text"),
    ],
)
def test_a_wrong_line_is_named(source: Path, line: str, told: str) -> None:
    content = f'{{"file": "b.png"}}\n{line}\n'
    source.with_suffix(".jsonl").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"{source}.jsonl, line 2: .*{told}"):
        list_photos(locate(str(source)))


def test_nothing_lies_beside_a_zip_file(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as packed:
        for name in ("a.png", "b.png"):
            packed.write(source / name, f"p/{name}")
        packed.writestr("p/list.jsonl", '{"file": "b.png", "licence": "CC0"}')
    for url, expected in (("zip://p", {"CC0": 1, "unknown": 1}), ("zip://", {"unknown": 2})):
        assert licences(list_photos(locate(f"{url}::{tmp_path}/train.zip"))) == expected


def test_a_source_of_one_picture_is_refused(source: Path) -> None:
    (source / "b.png").unlink()
    with pytest.raises(ValueError, match=f"one picture at {source}: expected two or more"):
        list_photos(locate(str(source)))


class _Failing:
    """A store's `read` that fails some times before it gives what there is."""

    def __init__(self, source: Path, errors: list[OSError]) -> None:
        self.store, self.errors = connect(Location(str(source))), iter(errors)

    def __call__(self, path: str) -> bytes:
        for error in self.errors:
            raise error
        return self.store.read(path)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.mark.parametrize(("failures", "readable"), [(0, True), (2, True), (9, False)])
def test_a_store_that_fails_is_asked_some_more_times(
    source: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch, failures: int, readable: bool
) -> None:
    store = connect(Location(str(source)))
    monkeypatch.setattr(store, "read", _Failing(source, [OSError(5, "Input/output error")] * failures))
    assert (read_photo(store, A) is not None) == readable
    assert pauses == list(photos.PAUSES)[:failures]


def test_a_picture_that_has_vanished_is_skipped_at_once(source: Path, pauses: list[float]) -> None:
    (source / "a.png").unlink()
    assert read_photo(connect(Location(str(source))), A) is None
    assert not pauses


@pytest.mark.parametrize("size", [(140, 1400), (256, 2560), (300, 450), (2000, 1000)])
def test_both_sides_shrink_alike(size: tuple[int, int]) -> None:
    pixels_hwc = np.zeros((*size, 3), np.uint8)
    for seed in range(4):
        small = shrunk(pixels_hwc, np.random.default_rng(seed), 256).shape[:2]
        assert small[0] * size[1] == pytest.approx(small[1] * size[0], abs=sum(size) / 2)
        assert min(small) >= min(256, *size)


def test_of_each_picture_it_is_known_what_the_list_tells(tmp_path: Path) -> None:
    found = list_photos(locate(str(write_photographs(tmp_path))))
    assert [(photo.path, photo.licence, photo.caption) for photo in found] == [
        (f"{name}.png", "CC0", f"A {name}.") for name in ("astronaut", "chelsea", "coffee")
    ]
