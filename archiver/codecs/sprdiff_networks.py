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

from archiver.codecs.drawing import bent, enlarged
from archiver.codecs.gan_networks import Block
from archiver.codecs.latent_model import ContextModel, Integers
from archiver.codecs.sprdiff_denoiser import Denoiser, Guidance
from archiver.codecs.sprdiff_foundation import Dino, KlLatents, Transform
from archiver.codecs.sprdiff_shape import BRANCHES, CELL, COARSE, CONDITION, STRIDE, WIDEST, Shape

# Legend of suffixes: B batch; H, W pixels; l latents; c cells of 16x16 pixels; y cells of 32x32 pixels, `CELL`.


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
    """The distortion-aware module: symbols -> the coarse picture at 1/4, and what they say of the latents beyond it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fold = shape.fold
        self.stem = nn.Conv2d(shape.channels, shape.deep, 3, padding=1)
        self.inside = nn.ModuleList(Block(shape.deep, 5, CONDITION) for _ in range(shape.blocks))
        self.up1 = nn.Conv2d(shape.deep, 4 * shape.width, 1)
        self.middle = nn.ModuleList(Block(shape.width, 3, CONDITION) for _ in range(3))
        self.beyond = nn.Conv2d(shape.width, shape.latent * shape.fold**2, 1)
        fine = shape.width // 2
        self.up2 = nn.Conv2d(shape.width, 4 * fine, 1)
        self.fine = nn.ModuleList(Block(fine, 3, CONDITION) for _ in range(2))
        self.out = nn.Conv2d(fine, 3 * 4, 3, padding=1)
        self.linear_out = nn.ConvTranspose2d(shape.channels, 3, CELL // COARSE, CELL // COARSE)
        # Sees the coarse picture as such, and takes its blocks away.
        self.smooth = nn.Sequential(
            nn.Conv2d(3 + fine // 4, fine, 3, padding=1),
            nn.LeakyReLU(0.2),
            Block(fine, 5),
            Block(fine, 5),
            nn.Conv2d(fine, 3, 3, padding=1),
        )
        for layer in (self.beyond, self.out, self.smooth[-1]):
            assert isinstance(layer, nn.Conv2d)
            _quiet(layer, 0.1)

    def forward(self, y_hat: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, h, w) -> beyond (B, latent, H/stride, W/stride), coarse (B, 3, H/4, W/4)."""
        x = bent(self.stem(y_hat))
        for block in self.inside:
            x = block(x, condition)
        x = F.pixel_shuffle(self.up1(x), 2)
        for block in self.middle:
            x = block(x, condition)
        beyond = unfolded(self.beyond(x), self.fold)
        x = F.pixel_shuffle(self.up2(x), 2)
        for block in self.fine:
            x = block(x, condition)
        coarse = self.linear_out(y_hat) + F.pixel_shuffle(self.out(x), 2)
        coarse = coarse + self.smooth(torch.cat((coarse, F.pixel_shuffle(x, 2)), 1))
        return beyond.float(), coarse.float()


def begun(coarse: Tensor) -> Tensor:
    """The coarse picture at full size, whose latents the denoiser begins with."""
    return enlarged(coarse, COARSE).clamp(-1, 1)


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
        # Training leaves it empty, `archiver.training.sprdiff_fit.fitted` fills it.
        self.entropy = Integers(shape.channels, shape.slices, shape.rates, shape.context)

    def own_eyes(self) -> Eyes:
        """At foundation size: the frozen networks, which this one holds."""
        return Eyes(self.autoencoder, self.transform)

    @torch.no_grad()
    def begin(self, latents: Latents) -> None:
        """Before training: symbols are sums and differences of latents, pictures what these decode to one by one.

        Symbols are finer the more they change pixels, as equal steps of pixels would have it; the coarsest rate has
        steps of 5.5, the finest of 2.6 (of a cell's pixels, root of summed squares), 0.016 and 0.04 bits a pixel for
        their symbols alone. Training then begins at a picture; from random weights it takes long to come to one.
        """
        shape, near = self.shape, 3  # cells a side that are decoded, of which the middle one is looked at
        if shape.fold > 1:
            return
        filters = averages_and_details(shape.channels, shape.latent)
        self.analysis.linear.weight.copy_(filters)
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
        changes = COARSE * out.weight.flatten(1).norm(dim=1)
        steps = torch.logspace(math.log10(5.5), math.log10(2.6), shape.rates)
        wanted = torch.log(changes / steps[:, None]).clamp(-0.95 * WIDEST, 0.95 * WIDEST)
        self.gain.copy_(WIDEST / STRIDE * torch.atanh(wanted / WIDEST))

    def analysed(self, features: Sequence[Tensor], rates: Tensor, there: Tensor) -> Tensor:
        """Latents, distortion-oriented and semantic-oriented features at their own grids -> y, not yet rounded.

        `rates` (B,) and `there` (B, 4), of BRANCHES, tell each picture's rate and which branches it has.
        """
        latents, distortion, semantic = features
        distortion = self.present("distortion", distortion, there)
        semantic = self.present("semantic", semantic, there)
        y = self.analysis((folded(latents, self.shape.fold), distortion, semantic), self.told(rates))
        scaled: Tensor = y.float() * self._gain()[rates].exp()[:, :, None, None]
        return scaled

    def _gain(self) -> Tensor:
        """Logarithms, (rates, channels)."""
        return WIDEST * torch.tanh(STRIDE / WIDEST * self.gain)

    def reconstructed(self, symbols: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols -> what they say of the latents beyond the coarse picture, and that at 1/4, around [-1, 1]."""
        y_hat = symbols * (self.ungain - self._gain())[rates].exp()[:, :, None, None]
        made: tuple[Tensor, Tensor] = self.reconstruction(y_hat, self.told(rates))
        return made

    def drawn(self, estimate: Tensor, coarse: Tensor, noise: Tensor, rates: Tensor, there: Tensor) -> Tensor:
        """The latents of the final picture."""
        pixel = self.present("pixel", self.guidance.pixel(coarse), there)
        seen = self.semantic(begun(coarse))
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
