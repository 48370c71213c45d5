"""The networks of the `sprdiff` codec, at embedded and at foundation size.

Everything meets on a grid of 16x16 pixels, whatever the stride of latents (embedded 16, Stable Diffusion 8): maps of
a finer grid are folded into channels there, `folded`, and unfolded again, `unfolded`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.gan_networks import Block
from archiver.codecs.latent_codec import ContextModel, Integers
from archiver.codecs.layered import bent, enlarged
from archiver.codecs.sprdiff_foundation import GRID, Dino, KlLatents, Transform, with_low_rank

# Legend of suffixes: B batch; H, W pixels; l latents; c cells of 16x16 pixels; y cells of 32x32 pixels, `CELL`.

CELL = 32  # pixels of a symbol
COARSE = 4  # the coarse picture is made at 1/4
CONDITION = 32
STRIDE = 8.0  # of a gain's logarithm: bits follow their price eight times as fast as weights learn
BRANCHES = ("distortion", "semantic", "pixel", "meaning")  # the last two: what the coarse picture tells


@dataclass(frozen=True)
class Shape:
    """All sizes; the defaults are `sprdiff-tiny`."""

    latent: int = 16  # channels of the autoencoder's latents
    stride: int = 16  # pixels of a latent
    distortion: int = 16  # channels of the distortion-oriented features
    semantic: int = 96  # ... of the semantic-oriented ones
    channels: int = 48  # of symbols
    slices: int = 3
    rates: int = 4
    context: int = 128  # width of the entropy model
    width: int = 128  # channels at 1/16
    deep: int = 208  # ... at 1/32
    blocks: int = 4  # at 1/32, each way
    pixel: int = 32  # channels of pixel-level guidance
    unet: int = 64  # channels at the UNet's finest level
    unet_deep: int = 128  # ... at all others; 0: doubling, to four times
    levels: int = 2
    layers: int = 1  # residual blocks a level
    cross: int = 128  # channels of tokens
    head: int = 32  # channels of an attention head
    tokens: int = 4  # a side
    step: int = 100  # of Stable Diffusion's 1,000: how much noise the one step begins with
    # 1: latents, semantics and UNet are those of published models (sprdiff_foundation.py), of these sizes
    foundation: int = 0
    rank: int = 0  # of the updates of the UNet's attention
    vae: int = 0  # channels at full size
    dino_layers: int = 0
    dino_side: int = 0

    @property
    def fold(self) -> int:
        """Latents to a feature, a side."""
        return GRID // self.stride


# `sprdiff-sd`: Stable Diffusion 2.1's autoencoder and UNet (or SD-Turbo's), and DINOv2-base.
FOUNDATION = Shape(
    latent=4, stride=8, distortion=320, semantic=768, channels=192, slices=6, context=384, width=384, deep=512,
    blocks=6, pixel=64, unet=320, unet_deep=0, levels=4, layers=2, cross=1024, head=64, tokens=8, step=399,
    foundation=1, rank=32, vae=128, dino_layers=12, dino_side=37,
)  # fmt: skip


class Encodes(Protocol):
    """What the codec asks of an encoder that it does not train."""

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], whole cells -> features (B, C, …)."""


class Latents(Encodes, Protocol):
    """... and of the autoencoder whose latents the denoiser draws."""

    def decode(self, latents: Tensor, noise_quarter: Tensor, noise_HW: Tensor) -> Tensor:
        """-> (B, 3, H, W) around [-1, 1]; noise is (B, 1, H/4, W/4) and (B, 1, H, W)."""


@dataclass(frozen=True)
class Eyes:
    """The frozen networks that a codec shares with others."""

    latents: Latents
    distortion: Encodes


class Student(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] -> what they show, (B, semantic, H/16, W/16); learns from a classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(48, 96, 2, stride=2),
            Block(96),
            Block(96),
            nn.Conv2d(96, 160, 2, stride=2),
            Block(160, 5),
            Block(160, 5),
            Block(160, 5),
            nn.Conv2d(160, channels, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.layers(pixels)
        return out


def folded(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.pixel_unshuffle(x, factor)


def unfolded(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.pixel_shuffle(x, factor)


def _quiet(layer: nn.Conv2d, share: float) -> None:
    with torch.no_grad():
        layer.weight.mul_(share)


def averages_and_details(channels: int, latent: int) -> Tensor:
    """(channels, latent, 2, 2), orthonormal: the sums of 2x2 latents of each channel, then their three differences."""
    waves = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).view(4, 2, 2) / 2
    kinds = [(channel, 0) for channel in range(latent)]
    kinds += [(channel, wave) for channel in range(latent) for wave in (1, 2, 3)]
    filters = torch.zeros(channels, latent, 2, 2)
    for place, (channel, wave) in enumerate(kinds[:channels]):
        filters[place, channel] = waves[wave]
    return filters


class Analysis(nn.Module):
    """The three encoders' features at 1/16, aligned and fused -> (B, channels, H/32, W/32)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inside = (shape.latent * shape.fold**2, shape.distortion, shape.semantic)
        self.align = nn.ModuleList(nn.Conv2d(channels, shape.width, 1) for channels in inside)
        self.fuse = nn.ModuleList(Block(shape.width, 3, CONDITION) for _ in range(3))
        self.down = nn.Conv2d(shape.width, shape.deep, 2, stride=2)
        self.inside = nn.ModuleList(Block(shape.deep, 3, CONDITION) for _ in range(shape.blocks))
        self.out = nn.Conv2d(shape.deep, shape.channels, 3, padding=1)
        self.linear = nn.Conv2d(inside[0], shape.channels, 2, stride=2, bias=False)
        _quiet(self.out, 0.1)

    def forward(self, features: Sequence[Tensor], condition: Tensor) -> Tensor:
        y = self.linear(features[0])
        x = torch.stack([align(one) for align, one in zip(self.align, features, strict=True)]).sum(0)
        for block in self.fuse:
            x = block(x, condition)
        x = bent(self.down(x))
        for block in self.inside:
            x = block(x, condition)
        out: Tensor = y + self.out(x)
        return out


class Reconstruction(nn.Module):
    """The distortion-aware module: symbols -> an estimate of the latents, and the coarse picture at 1/4."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fold = shape.fold
        self.stem = nn.Conv2d(shape.channels, shape.deep, 3, padding=1)
        self.inside = nn.ModuleList(Block(shape.deep, 5, CONDITION) for _ in range(shape.blocks))
        self.up1 = nn.Conv2d(shape.deep, 4 * shape.width, 1)
        self.middle = nn.ModuleList(Block(shape.width, 3, CONDITION) for _ in range(3))
        self.estimate = nn.Conv2d(shape.width, shape.latent * shape.fold**2, 1)
        self.linear = nn.ConvTranspose2d(shape.channels, shape.latent * shape.fold**2, 2, 2, bias=False)
        fine = shape.width // 2
        self.up2 = nn.Conv2d(shape.width, 4 * fine, 1)
        self.fine = nn.ModuleList(Block(fine, 3, CONDITION) for _ in range(2))
        self.out = nn.Conv2d(fine, 3 * 4, 3, padding=1)
        self.linear_out = nn.ConvTranspose2d(shape.channels, 3, CELL // COARSE, CELL // COARSE)
        _quiet(self.estimate, 0.1)
        _quiet(self.out, 0.1)

    def forward(self, y_hat: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, h, w) -> (B, latent, H/stride, W/stride), (B, 3, H/4, W/4)."""
        x = bent(self.stem(y_hat))
        for block in self.inside:
            x = block(x, condition)
        x = F.pixel_shuffle(self.up1(x), 2)
        for block in self.middle:
            x = block(x, condition)
        estimate = unfolded(self.linear(y_hat) + self.estimate(x), self.fold)
        x = F.pixel_shuffle(self.up2(x), 2)
        for block in self.fine:
            x = block(x, condition)
        coarse = self.linear_out(y_hat) + F.pixel_shuffle(self.out(x), 2)
        return estimate.float(), coarse.float()


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


class Sprdiff(nn.Module):
    """All that a weights file holds."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.semantic: nn.Module = Student(shape.semantic)
        if shape.foundation:
            self.semantic = Dino(shape.semantic, shape.dino_layers, shape.dino_side).requires_grad_(False)
            self.autoencoder = KlLatents(shape.vae, shape.latent).requires_grad_(False)
            self.transform = Transform(shape.distortion)
        self.analysis = Analysis(shape)
        self.reconstruction = Reconstruction(shape)
        self.guidance = Guidance(shape)
        self.denoiser = Denoiser(shape)
        self.told = nn.Sequential(
            nn.Embedding(shape.rates, CONDITION), nn.Linear(CONDITION, CONDITION), nn.SiLU()
        )
        # What symbols are multiplied with, and takes it back: logarithms, in units of STRIDE.
        first = torch.linspace(-0.5, 0.5, shape.rates)[:, None].expand(-1, shape.channels) / STRIDE
        self.gain = nn.Parameter(first.clone())
        self.ungain = nn.Parameter(torch.zeros(shape.rates, shape.channels))  # beside the gain's own inverse
        # What stands for a branch that is left out, so that leaving it out can be measured.
        self.absent = nn.ParameterDict(
            {
                "distortion": nn.Parameter(torch.zeros(shape.distortion)),
                "semantic": nn.Parameter(torch.zeros(shape.semantic)),
                "pixel": nn.Parameter(torch.zeros(shape.pixel)),
                "meaning": nn.Parameter(torch.zeros(shape.semantic)),
            }
        )
        # Training leaves it empty, `archiver.training.sprdiff.fitted` fills it.
        self.entropy = Integers(shape.channels, shape.slices, shape.rates, shape.context)

    def own_eyes(self) -> Eyes:
        """At foundation size: the frozen networks, which this one holds."""
        return Eyes(self.autoencoder, self.transform)

    @torch.no_grad()
    def begin(self, latents: Latents) -> None:
        """Before training: symbols are sums and differences of latents, pictures what these decode to one by one.

        Training then begins at a picture; from random weights it takes long to come to one.
        """
        shape, near = self.shape, 3  # cells a side that are decoded, of which the middle one is looked at
        if shape.fold > 1:
            return
        filters = averages_and_details(shape.channels, shape.latent)
        self.analysis.linear.weight.copy_(filters)
        self.reconstruction.linear.weight.copy_(filters)
        side, middle = near * CELL, slice(CELL // COARSE, 2 * CELL // COARSE)
        noises = (torch.zeros(1, 1, side // 4, side // 4), torch.zeros(1, 1, side, side))
        found = []
        for one in (torch.zeros_like(filters[0]), *filters):
            alone = F.pad(one[None], (2, 2, 2, 2))
            picture = F.avg_pool2d(latents.decode(alone, *noises), COARSE)
            found.append(picture[0, :, middle, middle])
        out = self.reconstruction.linear_out
        out.weight.copy_(torch.stack(found[1:]) - found[0])
        assert out.bias is not None
        out.bias.copy_(found[0].mean((1, 2)))

    def analysed(self, features: Sequence[Tensor], rates: Tensor, there: Tensor) -> Tensor:
        """Latents, distortion-oriented and semantic-oriented features at their own grids -> y, not yet rounded.

        `rates` (B,) and `there` (B, 4), of BRANCHES, tell each picture's rate and which branches it has.
        """
        latents, distortion, semantic = features
        distortion = self.present("distortion", distortion, there)
        semantic = self.present("semantic", semantic, there)
        y = self.analysis((folded(latents, self.shape.fold), distortion, semantic), self.told(rates))
        scaled: Tensor = y.float() * (STRIDE * self.gain[rates]).exp()[:, :, None, None]
        return scaled

    def reconstructed(self, symbols: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols -> the estimate of the latents, and the coarse picture at 1/4, around [-1, 1]."""
        y_hat = symbols * (self.ungain - STRIDE * self.gain)[rates].exp()[:, :, None, None]
        made: tuple[Tensor, Tensor] = self.reconstruction(y_hat, self.told(rates))
        return made

    def drawn(self, estimate: Tensor, coarse: Tensor, noise: Tensor, rates: Tensor, there: Tensor) -> Tensor:
        """The latents of the final picture."""
        pixel = self.present("pixel", self.guidance.pixel(coarse), there)
        seen = self.semantic(enlarged(coarse, COARSE).clamp(-1, 1))
        absent = self.absent["meaning"]
        tokens = self.guidance.meaning(seen, rates, there[:, BRANCHES.index("meaning")], absent)
        made: Tensor = self.denoiser(estimate, noise, pixel, tokens)
        return made

    def present(self, branch: str, x: Tensor, there: Tensor) -> Tensor:
        """A branch's map, or what stands for it."""
        mine = there[:, BRANCHES.index(branch), None, None, None]
        return torch.where(mine, x, self.absent[branch][None, :, None, None].to(x.dtype))


def context_model(shape: Shape) -> ContextModel:
    return ContextModel(shape.channels, shape.slices, shape.rates, shape.context)
