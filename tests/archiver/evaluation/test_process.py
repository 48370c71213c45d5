from collections.abc import Iterator

import pytest

from archiver.evaluation import process
from archiver.evaluation.process import Work, _timed


@pytest.mark.parametrize(("enough", "timed"), [(0.0, 1), (60.0, 3)])
def test_timing_ends_when_it_has_seen_enough(
    enough: float, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TIMED_SECONDS", enough)
    ran: list[int] = []

    def works() -> Iterator[Work]:
        for number in range(3):
            yield Work(100, lambda number=number: ran.append(number))  # type: ignore[misc]

    timing = _timed(works)
    assert ran == [0, *range(timed)]  # the first also to warm up
    assert timing.pixels == 100 * timed
    assert timing.seconds >= 0
    assert timing.peak_bytes > 0
