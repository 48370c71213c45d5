import statistics
from itertools import pairwise

import pytest

from tests.measure.generator import CAMERAS, FAILURES, records


def test_equal_seeds_give_equal_records_and_others_do_not() -> None:
    assert list(records(2000, seed=7)) == list(records(2000, seed=7))
    assert list(records(2000, seed=7)) != list(records(2000, seed=8))


@pytest.mark.parametrize("count", [0, 1, 17, 20_000])
def test_as_many_different_keys_as_asked_for_sorted_as_bytes(count: int) -> None:
    keys = [record.key.encode() for record in records(count, seed=1)]
    assert len(keys) == count
    assert all(left < right for left, right in pairwise(keys))


def test_records_look_like_a_photo_collection() -> None:
    found = list(records(30_000, seed=3, mean_bitstream_bytes=300))
    images = [record.image for record in found if record.image is not None]
    failures = [record.failure for record in found if record.failure is not None]
    assert 10 <= len(failures) <= 60
    assert set(failures) == set(FAILURES)
    assert statistics.mean(len(image.bitstream) for image in images) == pytest.approx(300, rel=0.02)
    assert 40 <= statistics.mean(len(image.caption or "") for image in images) <= 60
    assert {(image.height, image.width) for image in images} == {
        size for camera in CAMERAS for size in ((camera.height, camera.width), (camera.width, camera.height))
    }
    assert 2_000_000 <= statistics.median(record.source_bytes for record in found) <= 8_000_000
    assert 0.001 <= sum(record.notes is not None for record in found) / len(found) <= 0.01


def test_times_rise_with_the_number_in_a_shoot() -> None:
    for left, right in pairwise(records(20_000, seed=5)):
        same_reel = left.key.rpartition("/")[0] == right.key.rpartition("/")[0]
        if same_reel and left.key.rpartition("/")[2][:4] == right.key.rpartition("/")[2][:4]:
            assert left.mtime <= right.mtime


def test_captions_can_be_left_out() -> None:
    assert {record.image.caption for record in records(100, seed=1, captions=False) if record.image} == {None}
