"""Pictures thinner than a cell."""

import numpy as np
import pytest

from archiver.codecs.thin import shrunk, stretched
from archiver.evaluation.artefacts import colour_shift
from pipelines.images import MAX_PIXELS
from tests.codec_suite import decode_one, encode_one, load_preset
from tests.samples import gradient, noise


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 16), (15, 17), (31, 7)])
def test_shrinking_undoes_stretching(height: int, width: int) -> None:
    thin = noise(height, width)
    longer = stretched(thin, 16)
    assert longer.shape == (max(height, 16), max(width, 16), 3)
    assert np.array_equal(shrunk(longer, height, width), thin)


def test_a_size_that_cannot_be_is_refused_before_it_is_stretched() -> None:
    with pytest.raises(ValueError, match="a picture of 4 x 0 pixels"):
        stretched(noise(0, 4), 16)
    line = np.broadcast_to(np.uint8(0), (1, MAX_PIXELS // 2, 3))
    with pytest.raises(ValueError, match=f"a picture of {MAX_PIXELS // 2} x 16 pixels"):
        stretched(line, 16)


def test_rows_are_repeated_about_equally_often() -> None:
    rows = np.arange(3, dtype=np.uint8)[:, None]
    assert np.bincount(stretched(rows, 16)[:, 0]).tolist() == [6, 5, 5]


def test_a_row_is_the_mean_of_its_copies_rounded() -> None:
    longer = np.array([1, 2, 10, 10, 11, 13], dtype=np.uint8)[:, None, None].repeat(3, 2)
    assert shrunk(longer, 2, 1)[:, 0, 0].tolist() == [4, 11]
    assert shrunk(longer, 3, 1)[:, 0, 0].tolist() == [2, 10, 12]


@pytest.mark.parametrize("preset", ["layered-0.06", "gan-0.04", "sprdiff-tiny-0.033"])
@pytest.mark.parametrize(("height", "width"), [(3, 300), (300, 3)])
def test_thin_pictures_keep_their_colours(preset: str, height: int, width: int) -> None:
    codec = load_preset(preset)
    thin = gradient(height, width)
    assert colour_shift(thin, decode_one(codec, encode_one(codec, thin))) < 12
