"""The byte budget of FORMAT.md, on realistic records."""

import pytest

from tests.measure.generator import records
from tests.measure.overhead import overhead


@pytest.mark.parametrize("mean_bitstream_bytes", [60, 140, 500, 1000, 1200, 4000])
def test_a_record_costs_no_more_than_its_budget(mean_bitstream_bytes: int) -> None:
    found = overhead(list(records(10_000, seed=1, mean_bitstream_bytes=mean_bitstream_bytes)))
    assert found.records == 10_000
    assert 4 < found.each <= found.budget


def test_the_columns_and_the_footer_are_the_whole_part() -> None:
    found = overhead(list(records(500, seed=3)))
    assert sum(found.columns.values()) + found.bitstream_bytes + found.footer_bytes == found.part_bytes
    assert found.columns["digest"] < 500
