import constriction
import numpy as np
import pytest

from archiver.codecs.drawing import true_to
from archiver.codecs.gan_tints import (
    FARTHEST,
    SIDE,
    STEP,
    WIDTHS,
    colours_of,
    counts_of,
    decode_tints,
    encode_tints,
    tints_of,
)
from archiver.codecs.label_maps import TOTAL
from tests.samples import photo, photographs


def coded(pixels_hwc: np.ndarray) -> np.ndarray:
    """Tints that went through a range coder."""
    encoder = constriction.stream.queue.RangeEncoder()
    encode_tints(encoder, tints_of(pixels_hwc))
    decoder = constriction.stream.queue.RangeDecoder(encoder.get_compressed())
    return decode_tints(decoder, *pixels_hwc.shape[:2])


def test_tints_of_one_square_by_hand() -> None:
    pixels_hwc = np.full((16, 16, 3), (200, 101, 0), dtype=np.uint8)
    # 101 is nearest to 25 steps, 100; 200 is 25 steps above, 0 is 25 below.
    assert tints_of(pixels_hwc).tolist() == [[[25, 25, -25]]]
    assert colours_of(tints_of(pixels_hwc)).tolist() == [[[200, 100, 0]]]


def test_colours_come_back_within_half_a_step() -> None:
    extremes = [
        np.full((40, 600, 3), colour, dtype=np.uint8) for colour in ((255, 0, 255), (0, 255, 0), (255,) * 3)
    ]
    for pixels_hwc in (*photographs(), photo(700, 300), *extremes):
        found = coded(pixels_hwc)
        assert np.array_equal(found, tints_of(pixels_hwc))
        height, width = pixels_hwc.shape[:2]
        assert found.shape == (-(-height // SIDE), -(-width // SIDE), 3)
        corner = pixels_hwc[:SIDE, :SIDE].mean((0, 1))
        assert np.abs(colours_of(found)[0, 0] - corner).max() <= STEP / 2 + 0.5  # means are rounded to levels


def test_counts_are_whole_and_nearer_tints_are_likelier() -> None:
    for width in {width for widths in WIDTHS for width in widths}:
        counts = counts_of(width)
        assert counts.sum() == TOTAL
        assert counts.min() >= 1
        assert np.all(np.diff(counts[FARTHEST:]) <= 0)
        assert np.array_equal(counts, counts[::-1])


def test_symbols_that_lead_beyond_all_colours_are_refused() -> None:
    encoder = constriction.stream.queue.RangeEncoder()
    encode_tints(encoder, np.array([[[120, 120, 0], [FARTHEST + 1, 120, 0]]], dtype=np.int16))
    decoder = constriction.stream.queue.RangeDecoder(encoder.get_compressed())
    with pytest.raises(ValueError, match="tint"):
        decode_tints(decoder, 16, SIDE + 16)


def test_what_was_drawn_gets_the_colours_of_the_original() -> None:
    original = photo(600, 520)
    drawn = np.clip(original + np.array((9, -7, 4)), 0, 255).astype(np.uint8)
    back = true_to(drawn.copy(), colours_of(tints_of(original)), SIDE)
    before, after = (np.abs(made.mean((0, 1)) - original.mean((0, 1))).max() for made in (drawn, back))
    assert before > 6
    assert after < 1.5
