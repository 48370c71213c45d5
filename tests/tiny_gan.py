"""A `gan` codec of tiny, untrained networks, whose symbols nevertheless vary; its tables suit them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from archiver.codecs.gan import GanCodec, load_gan
from archiver.codecs.gan_networks import CONTEXT, Encoder, Gan, Shape
from archiver.codecs.label_maps import fit_label_tables
from archiver.codecs.networks import save_network
from archiver.codecs.symbols import fit_tables
from archiver.training.gan_fit import seen
from manifests.records import CodecSpec
from tests.golden_files import sha256
from tests.samples import photographs

SHAPE = Shape(channels=4, labels=6, width=8, blocks=6)
PAPER = Shape(channels=4, labels=6, width=4, blocks=1, paper=1)


def tiny_weights(folder: Path, shape: Shape = SHAPE) -> Mapping[str, Path]:
    """sha256 -> file, of one weights file written to a folder."""
    torch.manual_seed(3)
    gan = Gan(shape).eval()
    with torch.no_grad():
        gan.get_buffer("palette").copy_(torch.linspace(-1, 1, shape.labels)[:, None].expand(-1, 5))
        if isinstance(gan.encoder, Encoder):
            gan.encoder.linear.weight.zero_()  # symbols of random networks cost more than labels do
            gan.encoder.layers[-1].get_parameter("weight").mul_(30)
        else:
            list(gan.encoder.parameters())[-2].mul_(3)
        several = [seen(gan, pixels_hwc, torch.device("cpu")) for pixels_hwc in photographs()]
    tables = fit_tables([symbols for symbols, _ in several], CONTEXT)
    label_tables = fit_label_tables([labels for _, labels in several], shape.labels + 1)
    for name, values in (
        ("neighbours", tables.neighbours),
        ("tables", tables.counts),
        ("ranks", label_tables.ranks),
        ("labels", label_tables.labels),
    ):
        gan.get_buffer(name).copy_(torch.from_numpy(values))
    file = folder / "tiny.safetensors"
    save_network(gan, asdict(shape), file)
    return {sha256(file.read_bytes()): file}


def tiny_codec(weights: Mapping[str, Path], channels: int = 4) -> GanCodec:
    return load_gan(CodecSpec("gan", 1, {"channels": channels}, tuple(weights)), weights, "cpu")
