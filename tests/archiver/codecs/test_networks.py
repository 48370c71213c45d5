"""Weights files."""

import json
import resource
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from archiver.codecs.autoencoder import Autoencoder
from archiver.codecs.gan_networks import Gan
from archiver.codecs.gan_networks import Shape as GanShape
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import Shape as LayeredShape
from archiver.codecs.networks import LONGEST_SHAPE, PACKED_FROM, load_network, save_network
from archiver.codecs.perco_networks import Perco, shape_of
from archiver.codecs.sprdiff_networks import Sprdiff
from archiver.codecs.sprdiff_shape import Shape as SprdiffShape
from tests.tiny_perco import SHAPE as PERCO

Told = dict[str, int]
NETWORKS: dict[str, Callable[[Told], nn.Module]] = {
    "layered": lambda shape: Enhancer(LayeredShape(**shape)),
    "gan": lambda shape: Gan(GanShape(**shape)),
    "autoencoder": lambda shape: Autoencoder(GanShape(**shape)),
    "sprdiff": lambda shape: Sprdiff(SprdiffShape(**shape)),
    "perco": lambda shape: Perco(shape_of(asdict(PERCO) | shape)),
}


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


def claiming(file: Path, shape: object, tensors: dict[str, Tensor] | None = None) -> Path:
    """A weights file that says it is of a network of such a shape."""
    save_file(tensors or {}, file, {"shape": shape if isinstance(shape, str) else json.dumps(shape)})
    return file


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"blocks": 3000}, "blocks 3000, expected 0 to 32"),
        ({"deep_blocks": -1}, "deep_blocks -1, expected 0 to 32"),
        ({"coarse": 10**9}, "coarse 1000000000, expected 0 to 65,536"),
        ({"coarse": 1e9}, "coarse 1000000000.0, expected 0 to 65,536"),
        ({"rates": [{"codes": 10**9}]}, "codes 1000000000, expected 0 to 65,536"),
        ({"unet": {"block_out_channels": [8, 10**9]}}, "block_out_channels 1000000000, expected"),
        ({"unet": {"layers_per_block": 3000}}, "layers_per_block 3000, expected 0 to 32"),
        ('{"decay": NaN}', "decay nan, expected"),
        ("[" * 5000, "maximum recursion depth"),
        ("{", "holds other weights"),
        ({"x": "x" * LONGEST_SHAPE}, "a shape of 10,009 letters, expected 10,000 at most"),
    ],
)
def test_a_shape_that_no_network_has_is_refused_before_one_is_made(
    tmp_path: Path, shape: object, words: str
) -> None:
    made: list[object] = []
    with pytest.raises(ValueError, match=words):
        load_network(claiming(tmp_path / "x.safetensors", shape), made.append, torch.device("cpu"))  # type: ignore[type-var]
    assert made == []


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"weight": torch.zeros(2, 2)},
        {"weight": torch.zeros(2, 3)},
        {"weight": torch.zeros(2, 2), "a": torch.zeros(1)},
    ],
)
def test_a_file_of_other_tensors_is_refused_before_any_memory_is_taken(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    devices: list[str] = []

    def make(shape: Told) -> nn.Module:
        network = nn.Linear(2, 2)
        devices.append(network.weight.device.type)
        return network

    with pytest.raises(ValueError, match=r"missing|too many|\(2, 3\), expected \(2, 2\)"):
        load_network(claiming(tmp_path / "x.safetensors", {}, tensors), make, torch.device("cpu"))
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("layered", {"coarse": 16_000}),
        ("gan", {"width": 4000}),
        ("autoencoder", {"width": 4000}),
        ("sprdiff", {"deep": 16_000, "unet_deep": 4096}),
        ("perco", {"code": 65_536, "width": 8000}),
    ],
)
def test_a_small_file_that_claims_a_large_network_costs_little_memory(
    tmp_path: Path, family: str, shape: Told
) -> None:
    file = claiming(tmp_path / "x.safetensors", shape)
    assert file.stat().st_size < 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="is missing"):
        load_network(file, NETWORKS[family], torch.device("cpu"))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    )  # KiB; such networks take gigabytes


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("sprdiff", {"head": 0}),
        ("sprdiff", {"slices": 0}),
        ("gan", {"width": 0}),
        ("layered", {"fine": 0}),
        ("perco", {"rates": [{"shrink": 0, "codes": 0}]}),
    ],
)
def test_nothing_where_there_must_be_something_is_refused(tmp_path: Path, family: str, shape: Told) -> None:
    with (
        pytest.raises(ValueError, match=r"x\.safetensors holds other weights than this codec's"),
        pytest.warns(UserWarning, match="zero-element") if family in ("gan", "layered") else nullcontext(),
    ):
        load_network(claiming(tmp_path / "x.safetensors", shape), NETWORKS[family], torch.device("cpu"))


def test_steps_that_are_not_one_an_output_are_refused(tmp_path: Path) -> None:
    """A million of them to one output would be a million times its weights."""
    tensors = {"weight": torch.ones(1, 64, dtype=torch.int8), "weight.steps": torch.ones(1000)}
    with pytest.raises(ValueError, match=r"weight.steps is \(1000,\), expected \(1,\)"):
        load_network(
            claiming(tmp_path / "x.safetensors", {}, tensors), lambda _: nn.Linear(64, 1), torch.device("cpu")
        )
