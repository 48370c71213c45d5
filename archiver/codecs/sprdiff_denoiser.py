"""The denoiser of the `sprdiff` codec, and what guides it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent
from archiver.codecs.gan_networks import Block
from archiver.codecs.sprdiff_foundation import with_low_rank
from archiver.codecs.sprdiff_shape import COARSE, Shape

# Legend of suffixes: B batch; H, W pixels; l latents; c cells of 16x16 pixels.


class Guidance(nn.Module):
    """Dual features of the coarse picture: spatial ones for each latent, and tokens of what it shows."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.step, self.side = shape.stride // COARSE, shape.tokens
        self.see = nn.Conv2d(3 * self.step**2, 2 * shape.pixel, 3, padding=1)
        self.think = Block(2 * shape.pixel, 5)
        self.say = nn.Conv2d(2 * shape.pixel, shape.pixel, 1)
        self.mean = nn.Linear(shape.semantic, shape.cross)
        self.place = nn.Parameter(0.1 * torch.randn(shape.tokens**2, shape.cross))
        self.rate = nn.Embedding(shape.rates, shape.cross)

    def pixel(self, coarse: Tensor) -> Tensor:
        """(B, 3, H/4, W/4) -> (B, pixel, H/stride, W/stride)."""
        x = F.pixel_unshuffle(coarse, self.step)
        out: Tensor = self.say(self.think(bent(self.see(x))))
        return out

    def meaning(self, semantic: Tensor, rates: Tensor, there: Tensor, absent: Tensor) -> Tensor:
        """(B, semantic, c, c) -> (B, tokens, cross); where not `there` (B,), `absent` (semantic,) is what was seen."""
        seen = F.adaptive_avg_pool2d(semantic.float(), self.side).flatten(2).transpose(1, 2)
        seen = torch.where(there[:, None, None], seen, absent)
        told = self.mean(F.layer_norm(seen, seen.shape[-1:])) + self.place
        return torch.cat((told, self.rate(rates)[:, None].to(told.dtype)), 1)


def signal_and_noise(step: int) -> tuple[float, float]:
    """What latents and unit noise are multiplied with at a step of Stable Diffusion's schedule."""
    first, last = 0.00085**0.5, 0.012**0.5
    left = math.prod(1 - (first + (last - first) * n / 999) ** 2 for n in range(step + 1))
    return left**0.5, (1 - left) ** 0.5


class Denoiser(nn.Module):
    """One step of a UNet (diffusers) from noised estimates to latents, guided by pixels and meaning."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.shape = shape
        deep = shape.unet_deep
        widths = [shape.unet * min(2**n, 4) if not deep or not n else deep for n in range(shape.levels)]
        # As in Stable Diffusion, where attention ends above the last of four levels; of two levels it is the last.
        small = shape.levels == 2
        down = ["CrossAttnDownBlock2D"] * (shape.levels - 1) + ["DownBlock2D"]
        up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (shape.levels - 1)
        self.unet = UNet2DConditionModel(
            in_channels=shape.latent,
            out_channels=shape.latent,
            block_out_channels=tuple(widths),
            down_block_types=tuple(down[::-1] if small else down),
            up_block_types=tuple(up[::-1] if small else up),
            layers_per_block=shape.layers,
            cross_attention_dim=shape.cross,
            attention_head_dim=[max(1, width // shape.head) for width in widths],  # their number, in fact
            norm_num_groups=min(32, shape.unet // 2),
            # Tiles of a picture are drawn apart: at embedded size no latent attends to others.
            only_cross_attention=not shape.foundation,
            use_linear_projection=True,
        )
        self.guide = nn.Conv2d(shape.pixel, widths[0], 3, padding=1)
        if shape.foundation:  # the published network as it is, at first
            with_low_rank(self.unet, shape.rank)
            nn.init.zeros_(self.guide.weight)
        else:
            with torch.no_grad():
                self.unet.conv_out.weight.mul_(0.1)

    def forward(self, estimate: Tensor, noise: Tensor, pixel: Tensor, tokens: Tensor) -> Tensor:
        """Latents (B, latent, l, l) from their estimate, unit noise of the same shape, and guidance."""
        signal, spread = signal_and_noise(self.shape.step)
        height, width = estimate.shape[2:]
        many = 2 ** (self.shape.levels - 1)
        pad = (0, -width % many, 0, -height % many)
        noised, pixel = (F.pad(x, pad, mode="replicate") for x in (signal * estimate + spread * noise, pixel))
        said = self._said(noised, pixel, tokens)[..., :height, :width].float()
        if self.shape.foundation:  # said is the noise, as Stable Diffusion was taught
            said = spread / signal * (noise - said)
        made: Tensor = estimate + said
        return made

    def _said(self, noised: Tensor, pixel: Tensor, tokens: Tensor) -> Tensor:
        # Pixel-level guidance is added behind the first convolution, which so can stay as it was published.
        guide = self.guide(pixel)
        hook = self.unet.conv_in.register_forward_hook(lambda _, __, out: out + guide.to(out.dtype))
        try:
            step = torch.tensor(self.shape.step, device=noised.device)
            said: Tensor = self.unet(noised, step, tokens, return_dict=False)[0]
        finally:
            hook.remove()
        return said
