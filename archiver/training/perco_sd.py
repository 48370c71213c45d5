"""Training of the `perco` codec on Stable Diffusion: all rates of the paper, as PerCo (SD) trains them.

After Careil et al., ICLR 2024, and PerCo (SD) (arXiv 2409.20255): 512 x 512 crops, the whole UNet is trained with the
hyper-latent, v-prediction, a tenth of the captions dropped, LPIPS (VGG, 0.1) above 0.05 bpp. Departures: LPIPS looks at
a window of each picture, for memory; half the batch, which several processes make up for (`torchrun`, see ranks.py);
the averaged weights are what is exported, with a model of the indices beside them.

What training begins with are three parts:
    unet            a weights file of the codec (its hyper-encoder is taken too, where it is of the same rate), or a
                    folder unet/ of Stable Diffusion 2.1 in diffusers' layout, which then sees nothing of the
                    hyper-latent at first: what the new channels of its first convolution are multiplied with is 0
    autoencoder-kl, text-encoder    weights files as archiver/codecs/stable_diffusion.py tells
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from archiver.codecs.perco_import import RATES
from archiver.codecs.perco_networks import Shape
from archiver.codecs.perco_spaces import SD_LATENT, StableDiffusionSpace
from archiver.codecs.published import open_part
from archiver.codecs.stable_diffusion import load_autoencoder_kl, load_text_encoder
from archiver.training.perco import PercoTask, PercoWeights, Trained

PARTS = ("unet", "autoencoder-kl", "text-encoder")
HYPER = 320
UNET: Mapping[str, object] = {
    "in_channels": SD_LATENT + HYPER,
    "out_channels": SD_LATENT,
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
}
LPIPS_ABOVE = 0.05  # bits a pixel


def shape_of_rate(rate: str) -> Shape:
    """Stable Diffusion 2.1's, at one of the paper's rates."""
    return Shape((RATES[rate],), UNET, latent=SD_LATENT, hyper=HYPER)


def weights_of_rate(rate: str) -> PercoWeights:
    lpips = 0.1 if float(rate) > LPIPS_ABOVE else 0.0
    return PercoWeights(direct=0.0, levels="scaled-linear", lpips=lpips)


def foundation_task(shape: Shape, extra: PercoWeights, parts: Mapping[str, Path]) -> PercoTask:
    """The codec in Stable Diffusion's latents, beginning with `parts`."""
    generator, cpu = Trained(shape), torch.device("cpu")
    begin(generator, parts["unet"])
    checkpointed(generator.network.unet)
    space = StableDiffusionSpace(load_autoencoder_kl(parts["autoencoder-kl"], cpu))
    return PercoTask(generator, space, load_text_encoder(parts["text-encoder"], cpu), extra)


def checkpointed(unet: nn.Module) -> None:
    """Slopes are made from what is computed once more: a third more time, a fraction of the memory."""
    from diffusers.models.modeling_utils import ModelMixin

    assert isinstance(unet, ModelMixin)
    unet.enable_gradient_checkpointing()


def begin(generator: Trained, part: Path) -> None:
    """Fills the UNet, and what else fits, from the part `unet`; ValueError where it is another network's."""
    if part.is_dir():
        published = open_part(part)
        tensors = {f"unet.{name}": published.read(name) for name in published.shapes}
    else:
        tensors = _tensors(part)
    network = generator.network
    wanted = network.state_dict()
    conv = "unet.conv_in.weight"
    if conv in tensors and tensors[conv].shape[1] == network.shape.latent:
        tensors[conv] = widened(tensors[conv], wanted[conv].shape[1])
    unfit = [
        name
        for name in wanted
        if name.startswith("unet.") and (name not in tensors or tensors[name].shape != wanted[name].shape)
    ]
    if unfit:
        raise ValueError(
            f"{part} begins with another UNet than this recipe's: {unfit[0]}, {len(unfit)} in all"
        )
    rest = {name for name in wanted if not name.startswith("unet.")}
    same_rate = all(name in tensors and tensors[name].shape == wanted[name].shape for name in rest)
    network.load_state_dict(
        {name: tensors[name] for name in wanted if name.startswith("unet.") or same_rate}, strict=False
    )


def widened(weight: Tensor, channels: int) -> Tensor:
    """(out, in, 3, 3) -> (out, channels, 3, 3), the new ones 0."""
    more = torch.zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:], dtype=weight.dtype)
    return torch.cat((weight, more), 1)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as found:
            return {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error
