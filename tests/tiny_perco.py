"""A `perco` codec of tiny, untrained networks, whose indices nevertheless vary; its models of them suit them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from archiver.codecs.autoencoder import Autoencoder
from archiver.codecs.gan_networks import Shape as AutoencoderShape
from archiver.codecs.networks import save_network
from archiver.codecs.perco import PercoCodec, load_perco
from archiver.codecs.perco_indices import fit_model
from archiver.codecs.perco_networks import Perco, RateShape, Shape
from archiver.codecs.perco_spaces import EmbeddedSpace
from archiver.codecs.perco_text import TextShape, to_list
from archiver.training.perco_fit import indices_of
from manifests.records import CodecSpec, Param
from tests.golden_files import sha256
from tests.samples import photographs

WORDS = ("a", "small", "picture", "of", "cat", "dog", "it's")
LATENT = 4
SHAPE = Shape(
    rates=(RateShape(1, 16), RateShape(2, 40)),
    unet={
        "in_channels": LATENT + 8,
        "out_channels": LATENT,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
    },
    latent=LATENT,
    width=8,
    hyper=8,
    code=4,
    text=TextShape(len(WORDS), len("\n".join(WORDS)), tokens=6, channels=16, layers=1, heads=2),
    modelled=True,
)
AUTOENCODER = AutoencoderShape(channels=LATENT, width=8, blocks=1)
PARAMS: Mapping[str, Param] = {
    "latents": "embedded",
    "shrink": 1,
    "codes": 16,
    "indices": "model",
    "captions": True,
    "levels": "cosine",
    "spacing": "trailing",
    "steps": 2,
    "guidance": 2.0,
    "tile": 24,
    "overlap": 8,
    "precision": "fp32",
}


def write_autoencoder(folder: Path) -> Path:
    torch.manual_seed(4)
    file = folder / "autoencoder.safetensors"
    save_network(Autoencoder(AUTOENCODER), asdict(AUTOENCODER), file)
    return file


def tiny_weights(folder: Path) -> Mapping[str, Path]:
    """sha256 -> file: the codec's own, then the autoencoder's."""
    torch.manual_seed(3)
    autoencoder = Autoencoder(AUTOENCODER).eval()
    perco = Perco(SHAPE).eval()
    assert perco.text is not None
    perco.text.get_buffer("list").copy_(to_list(WORDS))
    space = EmbeddedSpace(autoencoder)
    for number, rate in enumerate(SHAPE.rates):
        one = perco.rate(number)
        with torch.no_grad():
            latents = [space.latents_of(pixels_hwc[:256, :256]) for pixels_hwc in photographs()[:2]]
            one.vq(one.hyper(torch.cat(latents)), torch.Generator().manual_seed(2))
        maps = [indices_of(perco, number, space, pixels_hwc[:256, :256]) for pixels_hwc in photographs()]
        assert one.indices is not None
        one.indices.load_state_dict(fit_model(maps, rate.codes, steps=30).state_dict())
    files = [folder / "perco.safetensors", folder / "autoencoder.safetensors"]
    save_network(perco, asdict(SHAPE), files[0])
    save_network(autoencoder, asdict(AUTOENCODER), files[1])
    return {sha256(file.read_bytes()): file for file in files}


def tiny_codec(weights: Mapping[str, Path], **params: Param) -> PercoCodec:
    return load_perco(CodecSpec("perco", 1, {**PARAMS, **params}, tuple(weights)), weights, "cpu")
