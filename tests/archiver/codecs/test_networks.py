"""Weights files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from archiver.codecs.networks import PACKED_FROM, load_network, save_network


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(PACKED_FROM, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(PACKED_FROM, 4)
    )
    with torch.no_grad():
        made.get_parameter("0.weight")[2] *= 1000  # one output's weights do not coarsen those of others
        made.get_parameter("0.weight")[3] = 0
    made.register_buffer("whole", torch.arange(3))
    return made


def loaded(file: Path) -> nn.Module:
    return load_network(file, lambda _: network(), torch.device("cpu"))


def test_packed_weights_are_within_half_a_step_of_the_largest_of_their_output(tmp_path: Path) -> None:
    original = network()
    save_network(original, {}, tmp_path / "packed.safetensors", packed=True)
    found = loaded(tmp_path / "packed.safetensors").state_dict()
    for name in ("0.weight", "2.weight"):
        expected = original.state_dict()[name]
        apart = (found[name] - expected).abs().flatten(1).amax(1)
        assert bool((apart <= expected.abs().flatten(1).amax(1) / 253).all())
        assert bool(apart.any())
    for name in ("0.bias", "1.weight", "whole"):
        assert torch.equal(found[name], original.state_dict()[name].half().to(found[name].dtype))


def test_packed_weights_that_are_packed_again_stay_as_they_are(tmp_path: Path) -> None:
    save_network(network(), {}, tmp_path / "once.safetensors", packed=True)
    save_network(loaded(tmp_path / "once.safetensors"), {}, tmp_path / "twice.safetensors", packed=True)
    once, twice = (loaded(tmp_path / f"{name}.safetensors").state_dict() for name in ("once", "twice"))
    for name, value in once.items():
        assert torch.allclose(twice[name], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_takes_two_bytes_a_weight_or_one(tmp_path: Path, packed: bool) -> None:
    large = nn.Conv2d(256, 256, 1)
    save_network(large, {}, tmp_path / "large.safetensors", packed)
    took = (tmp_path / "large.safetensors").stat().st_size / 256**2
    assert took == pytest.approx(1.05 if packed else 2.05, abs=0.05)
