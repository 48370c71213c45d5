import io

import numpy as np
import pytest
from PIL import Image

from manifests.records import EncodedImage
from pipelines.codec import Pixels
from pipelines.sheet import COLUMN, GUTTER, MARGIN, WIDTH, SheetRow, comparison_sheet, detail_of


def _noise(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _open(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as page:
        assert page.format == "PNG"
        return np.asarray(page.convert("RGB"))


def _stands_at(page_hwc: Pixels, left: int, picture_hwc: Pixels) -> list[int]:
    """Rows of the page at which the picture begins, exactly, in the column that starts at `left`."""
    height, width = picture_hwc.shape[:2]
    column = page_hwc[:, left : left + width]
    return [y for y in range(len(column) - height + 1) if np.array_equal(column[y : y + height], picture_hwc)]


def test_original_stands_left_and_reconstruction_right() -> None:
    """Pictures of exactly a column's width are drawn pixel by pixel, so they must be found unchanged."""
    pictures = [_noise(90, COLUMN, seed) for seed in range(4)]
    rows = [
        SheetRow(pictures[0], pictures[1], "first.jpg", "one line"),
        SheetRow(pictures[2], pictures[3], "second.jpg", "two\nlines"),
    ]
    page = _open(comparison_sheet(rows, "An archive", "two images"))
    assert page.shape[1] == WIDTH
    found = [
        _stands_at(page, left, picture)
        for picture, left in zip(pictures, [MARGIN, MARGIN + COLUMN + GUTTER] * 2, strict=True)
    ]
    assert [len(places) for places in found] == [1, 1, 1, 1]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0][0] + 90 < found[2][0]


def test_small_pictures_are_enlarged_with_their_pixels_left_to_be_seen() -> None:
    picture, other = _noise(10, 20, 1), _noise(10, 20, 2)
    page = _open(comparison_sheet([SheetRow(picture, other, "small.png", "")]))
    assert len(_stands_at(page, MARGIN, picture.repeat(4, axis=0).repeat(4, axis=1))) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4000, 3), (3, 4000), (1200, 1600)])
def test_pictures_of_any_shape_leave_the_margins_white(height: int, width: int) -> None:
    page = _open(comparison_sheet([SheetRow(_noise(height, width, 1), _noise(height, width, 2), "a", "b")]))
    assert page[:, : MARGIN - 1].min() == page[:, WIDTH - MARGIN + 1 :].min() == 255
    assert page[-MARGIN // 2 :].min() == 255


def test_long_and_strange_text_stays_between_the_margins() -> None:
    picture = _noise(20, 30, 1)
    for text in ("x" * 5000, "wide " * 400, "日本語 🙂 é \udcff \x00 \t", "", "…"):
        page = _open(comparison_sheet([SheetRow(picture, picture, text, f"{text}\n{text}")], text, text))
        assert page[:, WIDTH - MARGIN + 1 :].min() == 255


def test_eight_rows_make_a_page_eight_rows_long() -> None:
    row = SheetRow(_noise(60, 80, 1), _noise(60, 80, 2), "key", "detail")
    heights = [_open(comparison_sheet([row] * count)).shape[0] for count in (1, 2, 8)]
    assert heights[2] - heights[0] == 7 * (heights[1] - heights[0])


def test_detail_tells_bytes_ratio_and_rate() -> None:
    """1,000,000 / 125 = 8,000; 8 x 125 bits / (100 x 200) = 0.05."""
    encoded = EncodedImage(bytes(125), None, 100, 200)
    assert detail_of(1_000_000, encoded) == "1,000,000 bytes to 125 bytes · 8,000 : 1 · 0.0500 bits per pixel"
    told = detail_of(1_000, EncodedImage(bytes(125), "a cup", 100, 200))
    assert told == "1,000 bytes to 125 bytes · 8.0 : 1 · 0.0500 bits per pixel\n“a cup”"


def test_pictures_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a.jpg': shapes \(4, 5, 3\) and \(5, 4, 3\)"):
        comparison_sheet([SheetRow(_noise(4, 5, 1), _noise(5, 4, 1), "a.jpg", "")])
    with pytest.raises(ValueError, match="no images"):
        comparison_sheet([])
