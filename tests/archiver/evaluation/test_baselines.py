import numpy as np
import pytest
from PIL import Image

from archiver.evaluation.baselines import AHEAD, TITLES, TOLERANCE, Conventional, Matcher, Name, conventional
from pipelines.codec import Pixels
from tests.samples import noise, photograph


def squared(original: Pixels, decoded: Pixels) -> float:
    """Stands for LPIPS where only the choice matters."""
    return float(np.mean((original.astype(np.float64) - decoded) ** 2))


@pytest.fixture(scope="module")
def cup() -> Pixels:
    return np.ascontiguousarray(photograph("coffee")[60:260, 100:401])


@pytest.mark.parametrize("name", TITLES)
def test_the_file_is_the_largest_that_fits(name: Name, cup: Pixels) -> None:
    codec, wanted = conventional(name), 2_500
    found = Matcher(cup, squared).match(codec, wanted)
    assert found.decoded_hwc.shape == cup.shape
    assert not found.over
    assert 0.8 * wanted < found.bytes <= TOLERANCE * wanted
    reduced = Image.fromarray(cup).resize(
        (-(-301 // found.scale), -(-200 // found.scale)), Image.Resampling.LANCZOS
    )
    for quality in range(found.quality + 1, min(found.quality + 1 + AHEAD, codec.best) + 1):
        assert len(codec.encode(reduced, quality)) - codec.not_counted > TOLERANCE * wanted


@pytest.mark.parametrize("name", TITLES)
def test_the_best_of_the_sizes_is_taken(name: Name, cup: Pixels) -> None:
    matcher, codec = Matcher(cup, squared), conventional(name)
    best = matcher.match(codec, 3_000)
    for scale in (1, 2, 4, 8):
        one = matcher.match(codec, 3_000, [scale])
        assert one.over or squared(cup, one.decoded_hwc) >= squared(cup, best.decoded_hwc)


def test_more_bytes_give_a_better_picture(cup: Pixels) -> None:
    matcher = Matcher(cup, squared)
    errors = [
        squared(cup, matcher.match(conventional("avif"), wanted).decoded_hwc)
        for wanted in (500, 2_000, 8_000)
    ]
    assert errors == sorted(errors, reverse=True)


def test_where_no_file_is_small_enough_the_smallest_is_taken_and_marked() -> None:
    matcher, codec = Matcher(noise(64, 64), squared), conventional("jpeg")
    found = matcher.match(codec, 20)
    assert found.over
    assert found.quality == 0
    assert found.bytes == min(matcher.match(codec, 20, [scale]).bytes for scale in (1, 2, 4, 8))


def test_files_that_do_not_always_grow_are_found() -> None:
    sizes = [71, 72, 69, 65, 70, 80, 90, 100, 85, 120, 130]
    codec = Conventional("avif", 10, lambda _, quality: bytes(sizes[quality]), _not_decoded)
    for limit in (65, 71, 79, 86, 95, 130):
        found = Matcher(noise(16, 16), squared)._largest(codec, 1, limit)
        assert found == max(place for place, size in enumerate(sizes) if size <= limit)
    assert Matcher(noise(16, 16), squared)._largest(codec, 1, 64) is None


def _not_decoded(content: bytes, height: int, width: int) -> Image.Image:
    raise AssertionError


def test_what_a_reader_can_rebuild_of_webp_is_not_counted(cup: Pixels) -> None:
    codec = conventional("webp")
    content = codec.encode(Image.fromarray(cup), 50)
    assert (content[:4], content[8:16]) == (b"RIFF", b"WEBPVP8 ")
    assert Matcher(cup, squared).match(codec, len(content) - 20, [1]).quality >= 50


def test_jpeg_xl_is_a_bare_codestream(cup: Pixels) -> None:
    assert conventional("jxl").encode(Image.fromarray(cup), 50)[:2] == b"\xff\x0a"
