"""A `sprdiff` codec of tiny, untrained networks, whose symbols nevertheless vary."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from archiver.codecs.autoencoder import Autoencoder
from archiver.codecs.gan_networks import Shape as AutoencoderShape
from archiver.codecs.networks import save_network
from archiver.codecs.sprdiff import SprdiffCodec, load_sprdiff
from archiver.codecs.sprdiff_networks import Sprdiff, context_model
from archiver.codecs.sprdiff_shape import STRIDE, Shape
from manifests.records import CodecSpec
from tests.golden_files import sha256

AUTOENCODER = AutoencoderShape(channels=16, labels=1, width=4, blocks=1)
SHAPE = Shape(
    semantic=8, channels=8, slices=2, rates=3, context=8, width=8, deep=8, blocks=1, pixel=4, unet=8, unet_deep=16,
    cross=8, head=8, tokens=2,
)  # fmt: skip


def tiny_parts(folder: Path) -> Mapping[str, Path]:
    """The two autoencoders, by the names that recipes have for them."""
    files = {}
    for seed, name in enumerate(("autoencoder", "autoencoder-mse")):
        torch.manual_seed(seed)
        files[name] = folder / f"{name}.safetensors"
        save_network(Autoencoder(AUTOENCODER), asdict(AUTOENCODER), files[name])
    return files


def tiny_weights(folder: Path) -> Mapping[str, Path]:
    """sha256 -> file, of the three files of a codec, in the order of its spec."""
    torch.manual_seed(5)
    network = Sprdiff(SHAPE).eval()
    context = context_model(SHAPE)
    with torch.no_grad():
        network.gain.add_(3 / STRIDE)
        network.analysis.out.weight.mul_(20)  # so that symbols depend on all encoders
        for parameter in context.parameters():
            parameter.mul_(2)
    network.entropy.freeze(context)
    file = folder / "sprdiff.safetensors"
    save_network(network, asdict(SHAPE), file)
    return {sha256(one.read_bytes()): one for one in (file, *tiny_parts(folder).values())}


def tiny_codec(weights: Mapping[str, Path], rate: int = 2) -> SprdiffCodec:
    return load_sprdiff(CodecSpec("sprdiff", 1, {"rate": rate}, tuple(weights)), weights, "cpu")
