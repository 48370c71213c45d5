"""Boxes and masks -> labels."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests.storage import connect, locate
from pipelines.regions import (
    BadRegions,
    PlannedBoxes,
    left_out,
    open_regions,
    read_boxes,
    read_labels,
    with_boxes,
)

PIXELS = np.zeros((4, 6, 3), dtype=np.uint8)
VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6) * 11


def png(image: Image.Image, **settings: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **settings)
    return file.getvalue()


def test_what_lies_in_any_box_is_coded_and_the_rest_drawn() -> None:
    labels = PlannedBoxes().labels("a.png", "[[1,0,3,2],[2,1,6,3]]", PIXELS)
    assert labels is not None
    assert (labels // 255).tolist() == [
        [1, 0, 0, 1, 1, 1],
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
    ]


def test_no_boxes_draw_all_and_none_that_are_planned_code_all() -> None:
    labels = PlannedBoxes().labels("a.png", "[]", PIXELS)
    assert labels is not None
    assert labels.min() == 255
    assert PlannedBoxes().labels("a.png", None, PIXELS) is None


@pytest.mark.parametrize("box", [[0, 0, 7, 4], [0, 0, 6, 5]])
def test_a_box_outside_of_the_picture_is_refused(box: list[int]) -> None:
    with pytest.raises(BadRegions, match=r"box \[0, 0, .*\] in a picture of 6 x 4 pixels"):
        PlannedBoxes().labels("a.png", json.dumps([box]), PIXELS)


def test_boxes_are_read_in_whole_pixels(tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    file.write_text('{"a/1.png": [[0.5, 1, 2.1, 3]], "b.png": []}')
    assert read_boxes(locate(str(file))) == {"a/1.png": "[[0,1,3,3]]", "b.png": "[]"}
    rows = pa.table({"key": ["a/1.png", "a/2.png", "b.png"]})
    assert with_boxes(rows, locate(str(file)))["boxes"].to_pylist() == ["[[0,1,3,3]]", None, "[]"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"a": [[0, 0, 1, 1]]', "Expecting"),
        ("[1]", "a JSON list"),
        ('{"a": 5}', "'a' has no list of boxes"),
        ('{"a": [[0, 0, 1]]}', r"'a' has the box \[0, 0, 1\]"),
        ('{"a": [[0, 0, 1, "1"]]}', "'a' has the box"),
        ('{"a": [[0, 0, 1, true]]}', "'a' has the box"),
        ('{"a": [[2, 0, 2, 5]]}', "'a' has the box"),
        ('{"a": [[-1, 0, 2, 5]]}', "'a' has the box"),
        ('{"a": [[0, 0, NaN, 5]]}', "'a' has the box"),
        ('{"a": [[0, 0, Infinity, 5]]}', "'a' has the box"),
        ('{"a": [], "b": [], "a": []}', "'a' is there twice"),
    ],
)
def test_a_file_that_holds_no_boxes_is_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "boxes.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"boxes.json: .*{told}.*; expected {{key:"):
        read_boxes(locate(str(file)))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_mask_says_its_values(mode: str) -> None:
    image = Image.fromarray(VALUES)
    if mode == "P":
        image = Image.frombytes("P", (6, 4), VALUES.tobytes())
        image.putpalette([7] * 768)  # colours mean nothing
    assert np.array_equal(read_labels(png(image), 4, 6), VALUES)


def test_a_palette_of_few_colours_says_its_values() -> None:
    image = Image.frombytes("P", (6, 4), (VALUES % 3).tobytes())
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0])
    content = png(image, bits=2)
    assert content[24] == 2
    assert np.array_equal(read_labels(content, 4, 6), VALUES % 3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (png(Image.new("L", (4, 6))), "labels of 4 x 6 pixels, expected the picture's 6 x 4"),
        (png(Image.new("L", (30_000, 30_000))), "labels of 30000 x 30000 pixels"),
        (png(Image.new("RGB", (6, 4))), "mode RGB"),
        (png(Image.new("1", (6, 4))), "mode 1"),
        (png(Image.new("I;16", (6, 4))), "mode I;16"),
        (png(Image.fromarray(VALUES))[:-30], "not a whole PNG"),
        (b"GIF89a", "not a whole PNG"),
        (b"", "not a whole PNG"),
    ],
)
def test_a_mask_that_is_none_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(BadRegions, match=told):
        read_labels(content, 4, 6)


def test_grey_of_four_bits_is_refused() -> None:
    """Pillow would make 17 of 1."""
    content = bytearray(png(Image.new("L", (6, 4))))
    content[24] = 4
    with pytest.raises(BadRegions):
        read_labels(bytes(content), 4, 6)


def test_a_mask_lies_beside_its_image(tmp_path: Path) -> None:
    store = connect(locate(str(tmp_path)))
    store.write("a/photo.labels.png", png(Image.fromarray(VALUES)))
    masks = open_regions("mask", store)
    labels = masks.labels("a/photo.jpg", None, PIXELS)
    assert labels is not None
    assert np.array_equal(labels, VALUES)
    assert masks.labels("photo.jpg", None, PIXELS) is None
    store.write("a/photo.labels.png", b"torn")
    with pytest.raises(BadRegions, match=r"a/photo\.labels\.png: not a whole PNG"):
        masks.labels("a/photo.jpg", None, PIXELS)


def test_what_cannot_be_a_mask_is_none_and_one_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    source = connect(locate(str(tmp_path)))
    source.write("a.labels.png/b.jpg", b"")
    masks = open_regions("mask", source)
    assert masks.labels("a.jpg", None, PIXELS) is None
    assert masks.labels("x" * 246 + ".jpg", None, PIXELS) is None

    class Refusing:
        def __init__(self, error: OSError) -> None:
            self.error = error

        def read(self, path: str) -> bytes:
            raise self.error

    with pytest.raises(BadRegions, match=r"a//b\.labels\.png: .*Permission denied"):
        open_regions("mask", Refusing(PermissionError(13, "Permission denied"))).labels(
            "a//b.jpg", None, PIXELS
        )
    with pytest.raises(ConnectionError):
        open_regions("mask", Refusing(ConnectionError())).labels("a.jpg", None, PIXELS)


def test_masks_are_no_images_where_they_are_masks() -> None:
    assert left_out("mask") == ("*.labels.png",)
    assert left_out("none") == left_out("boxes") == ()


def test_none_codes_all_and_another_setting_is_refused(tmp_path: Path) -> None:
    store = connect(locate(str(tmp_path)))
    assert open_regions("none", store).labels("a.png", None, PIXELS) is None
    with pytest.raises(ValueError, match="keep 'detector x', expected one of none, boxes, mask"):
        open_regions("detector x", store)
