import pytest
import torch

from archiver.training.losses import repeated


def test_what_all_cells_have_wrong_alike_is_seen_and_what_one_has_is_not() -> None:
    torch.manual_seed(0)
    cell = torch.randn(3, 16, 16)
    everywhere = cell.repeat(2, 1, 4, 4)
    once = torch.zeros_like(everywhere)
    once[0, :, :16, :16] = cell
    assert repeated(everywhere) > 0.5
    assert repeated(once) == pytest.approx(float(repeated(everywhere)) / 32, rel=1e-3)
    assert repeated(torch.ones(1, 3, 32, 32)) == 0  # a shade is no pattern
