"""The measure of SC, on a photograph and tiny networks: its numbers mean what it says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.perception.lpips import LPIPS
from tests.measure.selective import (
    Row,
    gan_of,
    inner_lpips,
    inner_psnr,
    labelled,
    measured,
    splits,
    table,
)
from tests.samples import photograph
from tests.tiny_gan import tiny_weights


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS("alexnet").eval()


def test_the_largest_kind_is_kept_and_then_all_but_it() -> None:
    kinds = np.array([[0, 0, 0, 0], [5, 5, 0, 0], [5, 7, 7, 0]], dtype=np.uint8)
    first, second = splits(kinds, none=0)
    assert np.array_equal(first, kinds == 5)
    assert np.array_equal(second, kinds != 5)
    assert np.array_equal(splits(kinds, none=11)[0], kinds == 0)
    assert splits(np.zeros((2, 2), np.uint8), none=0) == []
    assert splits(np.ones((2, 2), np.uint8), none=0) == []


def test_pictures_are_found_with_their_labels(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png", "b_label.png", "c.jpg"):
        colour = Image.new("L" if name in ("a.png", "b_label.png") else "RGB", (6, 4), 0)
        colour.save(tmp_path / name)
    found = list(labelled(tmp_path))
    assert [(pixels.shape, kinds.shape, none) for pixels, kinds, none in found] == [
        ((4, 6, 3), (4, 6), 0),
        ((4, 6, 3), (4, 6), 11),
    ]


def test_distances_count_what_is_kept_alone(lpips: LPIPS) -> None:
    original = photograph("coffee")[:128, :160]
    kept = np.zeros((128, 160), dtype=bool)
    kept[:, :80] = True
    outside, inside = original.copy(), original.copy()
    outside[:, 80:] = 0
    inside[:, :80] ^= 8
    assert inner_lpips(lpips, original, outside, kept) == 0
    assert inner_psnr(original, outside, kept) > 100
    assert inner_lpips(lpips, original, inside, kept) > 0.01
    assert inner_psnr(original, inside, kept) == pytest.approx(10 * np.log10(255**2 / 64))


def test_a_split_is_measured_in_whole_bitstreams(lpips: LPIPS, tmp_path: Path) -> None:
    (file,) = tiny_weights(tmp_path).values()
    gc = {channels: gan_of(file, channels) for channels in (1, 2, 4)}
    original = photograph("astronaut")[:256, :256]
    kept = np.zeros((256, 256), dtype=bool)
    kept[:, :64] = True
    row = measured(gc[4], gc, lpips, original, kept)
    assert row.drawn == 0.75
    assert row.sc_bytes < row.whole_bytes
    assert row.gc_bytes < row.whole_bytes  # fewer channels are nearer
    assert 0 < row.label_bpp * 256 * 256 / 8 <= row.sc_bytes
    lines = list(table([row]))
    assert lines[1].split()[0] == "75%-100%"
    assert f"{row.sc_bytes:8.0f}" in lines[1]


def test_the_table_says_whether_labels_are_cheap() -> None:
    row = Row(0.3, 0.004, 100, 200, 90, 0.2, 0.3, 25.0, 24.0)
    dear = Row(0.8, 0.012, 100, 200, 90, 0.4, 0.3, 23.0, 24.0)
    assert list(table([row]))[-1].endswith("yes")
    first, second, both, told = list(table([row, dear]))[1:]
    assert (first.split()[0], second.split()[0], both.split()[0]) == ("25%-50%", "75%-100%", "all")
    assert both.count("50%") == 3
    assert told.endswith("NO")
