"""What work takes of a machine."""

import time

import pytest

from pipelines.spent import Spent


@pytest.mark.parametrize(
    ("device", "wall", "used", "seconds"),
    [("cpu", 2.0, 6.5, 6.5), ("cpu", 2.0, 0.5, 2.0), ("cuda:1", 2.0, 6.5, 2.0)],
)
def test_cores_that_work_together_all_count_and_so_does_waiting(
    device: str, wall: float, used: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", iter((10.0, 10.0 + wall)).__next__)
    monkeypatch.setattr(time, "process_time", iter((3.0, 3.0 + used)).__next__)
    assert Spent(device).seconds() == seconds
