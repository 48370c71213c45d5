"""Entropy models that are fitted to whole photographs' symbols."""

import numpy as np
import pytest
import torch

from archiver.codecs.latent_model import ContextModel
from archiver.training import context_fit
from archiver.training.context_fit import Plane, fit_context


def planes(*sides: int) -> list[Plane]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(-3, 4, (3, side, side + 5)).astype(np.int8), place) for place, side in enumerate(sides)
    ]


def fitted(planes: list[Plane]) -> ContextModel:
    torch.manual_seed(0)
    return fit_context(ContextModel(3, 3, 3, 8), planes, torch.device("cpu"))


def test_a_small_picture_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_fit, "FIT_STEPS", 3)
    large = planes(14, 30)
    alone, beside = fitted(large), fitted([*large, *planes(2)])
    for name, value in alone.state_dict().items():
        assert torch.equal(value, beside.state_dict()[name]), name
    fitted(planes(2, 5))  # nothing but small ones
