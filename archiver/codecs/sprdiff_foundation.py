"""What `sprdiff` stands on at foundation size: Stable Diffusion's autoencoder, DINOv2, and a transform of ELIC's kind.

All are made from sizes alone; their weights are part of the codec's own file, so that an archive needs no model hub.
The transform (He et al., CVPR 2022: 5x5 convolutions of stride 2 with residual bottlenecks between them) has no
attention blocks and is trained here, in the first stage, for the squared error; then it is frozen.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.perco_networks import Bottleneck
from archiver.codecs.sprdiff_shape import GRID

PATCH = 14  # pixels that DINOv2 sees as one
LATENT_SCALE = 0.18215  # of Stable Diffusion's latents, to unit variance
# ImageNet's mean and standard deviation, for pixels in [-1, 1].
_MEAN, _SPREAD = (-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)


class KlLatents(nn.Module):
    """Stable Diffusion's autoencoder, stride 8; `width` channels at full size (published: 128)."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        self.network = AutoencoderKL(
            latent_channels=latent,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=min(32, width),
        )

    def encode(self, pixels: Tensor) -> Tensor:
        mean: Tensor = self.network.encode(pixels).latent_dist.mean
        return mean.float() * LATENT_SCALE

    def decode(self, latents: Tensor, noise_quarter: Tensor, noise_HW: Tensor) -> Tensor:
        """This decoder has no use for noise."""
        made: Tensor = self.network.decode(latents / LATENT_SCALE, return_dict=False)[0]
        return made.float()


class Dino(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] -> patch features of DINOv2, (B, width, H/16, W/16)."""

    def __init__(self, width: int, layers: int, side: int) -> None:
        """`side`: patches a side that its places were learned for (published: 37)."""
        super().__init__()
        from transformers.models.dinov2 import Dinov2Config, Dinov2Model

        config = Dinov2Config(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
            patch_size=PATCH,
            image_size=PATCH * side,
        )
        self.network = Dinov2Model(config)
        for name, values in (("mean", _MEAN), ("spread", _SPREAD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        h, w = pixels.shape[2] // GRID, pixels.shape[3] // GRID
        seen = F.interpolate(pixels.float(), (h * PATCH, w * PATCH), mode="bilinear", antialias=True)
        seen = (seen - self.get_buffer("mean")) / self.get_buffer("spread")
        found: Tensor = self.network(pixel_values=seen).last_hidden_state[:, 1:]
        return found.transpose(1, 2).reshape(found.shape[0], found.shape[2], h, w)


class Transform(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] -> (B, channels, H/16, W/16)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(4, channels * 3 // 5)  # 192 for ELIC's 320
        layers: list[nn.Module] = []
        for inside in (3, width, width):
            layers += [nn.Conv2d(inside, width, 5, 2, 2), *(Bottleneck(width, bent=False) for _ in range(3))]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 5, 2, 2))

    def encode(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.layers(pixels)
        return out

    forward = encode


class LowRank(nn.Module):
    """A frozen linear layer and a learned update of it of low rank (LoRA, Hu et al., ICLR 2022)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.low = nn.Linear(base.in_features, rank, bias=False)
        self.high = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.high.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.high(self.low(x))
        return out


def with_low_rank(network: nn.Module, rank: int) -> None:
    """Freezes a UNet, and gives every linear layer of its attention an update that learns."""
    network.requires_grad_(False)
    attention = [
        module for name, module in network.named_modules() if name.rpartition(".")[2] in ("attn1", "attn2")
    ]
    for module in attention:
        for name in ("to_q", "to_k", "to_v"):
            setattr(module, name, LowRank(getattr(module, name), rank))
        out = module.get_submodule("to_out")
        assert isinstance(out, nn.ModuleList)
        assert isinstance(out[0], nn.Linear)
        out[0] = LowRank(out[0], rank)


# How layers were named when networks were published: DINOv2 before transformers 5, autoencoders before diffusers 0.18.
_RENAMED = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}


def published_names(ours: str) -> tuple[str, ...]:
    """The names that a tensor of these networks may have been published under, today's first; none for updates."""
    if ".low." in ours or ".high." in ours:
        return ()
    today = earlier = ours.replace(".base.", ".")
    for here, there in _RENAMED.items():
        earlier = earlier.replace(here, there)
    return (today, earlier)
