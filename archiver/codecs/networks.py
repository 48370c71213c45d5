"""Weights files <-> networks: safetensors whose metadata say how wide and deep the network is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from manifests.records import CodecSpec

Network = TypeVar("Network", bound=nn.Module)

PACKED_FROM = 32  # weights of an output: for fewer, their step would cost what int8 saves
STEPS = ".steps"  # ends the name of the steps of a packed tensor
# Of what a weights file says of its network: letters, widths, and how often something is repeated.
LONGEST_SHAPE, WIDEST, DEEPEST = 10_000, 65_536, 32
DEPTHS = ("blocks", "layers", "levels", "slices", "rates", "per_block")  # end their names


def channels_last(network: Network) -> Network:
    """The network with its weights laid out as CPUs and tensor cores want them; changed in place."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def weight_files(spec: CodecSpec, weights: Mapping[str, Path], count: int) -> list[Path]:
    """The local files of a spec's weights, in its order; ValueError where they are not `count`, or one is not there."""
    if len(spec.weights) != count:
        raise ValueError(f"codec {spec.name} with {len(spec.weights)} weights, expected {count}")
    missing = [sha256 for sha256 in spec.weights if sha256 not in weights]
    if missing:
        raise ValueError(f"codec {spec.name} needs the weights {missing[0]}, which are not here")
    return [weights[sha256] for sha256 in spec.weights]


def save_network(network: nn.Module, shape: Mapping[str, object], file: Path, packed: bool = False) -> None:
    """Weights in fp16 (integers as they are), with the arguments that make such a network.

    `packed`: matrices and kernels as int8 with a step for each output, in half the bytes.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            tensors[name] = value.contiguous()
        elif packed and value[:1].numel() >= PACKED_FROM and value.dim() > 1:
            tensors[name], tensors[name + STEPS] = _packed(value)
        else:
            tensors[name] = value.half().contiguous()
    save_file(tensors, file, {"shape": json.dumps(dict(shape), sort_keys=True)})


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs, ...) -> int8 of the same shape, and what 1 of them is worth: (outputs,), fp32."""
    steps = weight.float().abs().flatten(1).amax(1) / 127
    whole = (weight.float() / _along(steps.clamp(min=1e-30), weight)).round()
    return whole.to(torch.int8).contiguous(), steps


def _along(steps: Tensor, weight: Tensor) -> Tensor:
    return steps.reshape(-1, *[1] * (weight.dim() - 1))


def load_network(file: Path, make: Callable[[dict[str, int]], Network], device: torch.device) -> Network:
    """Inverse of `save_network`: in fp32, for inference; ValueError for a file of another network."""
    try:
        with safe_open(file, "pt") as found:
            shape = _shape((found.metadata() or {})["shape"])
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
        for name in [name for name in tensors if name.endswith(STEPS)]:
            whole, steps = tensors[name.removesuffix(STEPS)], tensors.pop(name)
            if steps.shape != whole.shape[:1]:
                raise ValueError(f"{name} is {tuple(steps.shape)}, expected {tuple(whole.shape[:1])}")
            tensors[name.removesuffix(STEPS)] = whole.float() * _along(steps, whole)
        with torch.device("meta"):  # no memory before it is known that the file holds such a network
            _check_same(make(shape).state_dict(), tensors)
        network = make(shape)
        network.load_state_dict(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file.name} holds other weights than this codec's: {told}") from error
    network.eval().requires_grad_(False).to(device)
    return channels_last(network)


def _shape(told: str) -> dict[str, int]:
    """What a file says of its network's sizes; ValueError for what no network of ours has."""
    if len(told) > LONGEST_SHAPE:
        raise ValueError(f"a shape of {len(told):,} letters, expected {LONGEST_SHAPE:,} at most")

    def bounded(pairs: list[tuple[str, object]]) -> dict[str, object]:
        for name, value in pairs:
            most = DEEPEST if name.endswith(DEPTHS) else WIDEST
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not 0 <= number <= most:
                    raise ValueError(f"{name} {number}, expected 0 to {most:,}")
        return dict(pairs)

    shape: dict[str, int] = json.loads(told, object_pairs_hook=bounded)
    return shape


def _check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """ValueError where names or shapes are not those expected."""
    if other := sorted(expected.keys() ^ found.keys()):
        raise ValueError(f"{other[0]} is {'missing' if other[0] in expected else 'too many'}")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}")


def levels_of(made: Tensor) -> NDArray[np.uint8]:
    """(1, 3, H, W) around [-1, 1] -> (H, W, 3)."""
    rounded = ((made[0] + 1) * 127.5).round().clamp(0, 255).byte()
    levels: NDArray[np.uint8] = rounded.permute(1, 2, 0).cpu().numpy()
    return levels
