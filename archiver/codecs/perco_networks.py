"""The networks of the `perco` codec: latents -> codes, and codes, noise and text -> latents.

The hyper-encoder's layout is that of Careil et al., ICLR 2024, whose authors published no code; it is known from the
configuration that they gave to the authors of PerCo (SD) (arXiv 2409.20255), and counts 4,080,128 parameters at a grid
of 64 x 64 and 5,868,032 at 8 x 8. The embedded presets use the same classes, narrower. Networks are made from a
`Shape`, which lies in the weights file's metadata; the UNet is the one of diffusers, its first convolution as wide as
noisy latent and hyper-latent together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from archiver.codecs.perco_indices import IndexModel
from archiver.codecs.perco_text import TextShape, WordEncoder

# Legend of suffixes: B batch; C channels of latents, M of the hyper-latent, D of a code; K codes;
# h, w cells of the latent, y, x cells of the hyper-latent.

DECAY = 0.8  # of a code's own mean, kept a step
LEAST_SEEN = 1e-3  # of a batch's even share: a code that is used less is placed anew


class Bottleneck(nn.Module):
    """(B, N, y, x) -> the same: 1x1 to half, 3x3, 1x1 back, beside it the input; `bent` at the end or not."""

    def __init__(self, channels: int, bent: bool) -> None:
        super().__init__()
        self.bent = bent
        half = channels // 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return F.relu(out) if self.bent else out


class Attention(nn.Module):
    """(B, N, y, x) -> the same: a gate and a trunk of three bottlenecks each (Cheng et al., CVPR 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(Bottleneck(channels, bent=True) for _ in range(3)))
        self.gate = nn.Sequential(
            *(Bottleneck(channels, bent=True) for _ in range(3)), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.trunk(x) * torch.sigmoid(self.gate(x))
        return out


class HyperEncoder(nn.Module):
    """(B, `latent`, h, w) -> (B, `out`, h / shrink, w / shrink), h and w multiples of `shrink` (1, 2, 4 or 8).

    Each of three stages begins with a convolution: 5x5 with stride 2 in the last log2(`shrink`) of them, else 1x1.
    Three bottlenecks follow; after the second stage attention, after the third a 1x1 to `out` and attention again.
    """

    def __init__(self, shrink: int, latent: int = 4, width: int = 192, out: int = 320) -> None:
        super().__init__()
        if shrink not in (1, 2, 4, 8):
            raise ValueError(f"a hyper-latent at 1/{shrink} of the latent's grid, expected 1, 2, 4 or 8")
        halved = shrink.bit_length() - 1
        layers: list[nn.Module] = []
        for stage in range(3):
            before = width if stage else latent
            if stage >= 3 - halved:
                layers.append(nn.Conv2d(before, width, 5, stride=2, padding=2))
            else:
                layers.append(nn.Conv2d(before, width, 1))
            layers += [Bottleneck(width, bent=False) for _ in range(3)]
            if stage == 1:
                layers.append(Attention(width))
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, out, 1), Attention(out))

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.layers(latents)
        return out


class CosineVQ(nn.Module):
    """(B, M, y, x) -> the nearest of K unit vectors of D numbers, by cosine, and back.

    Codes are the running means of what fell to them (decay `DECAY`), not trained by slopes; there is no commitment
    loss, as in the paper. Codes that nothing falls to are placed anew on inputs: without that, most die.
    """

    codebook: Tensor  # (K, D), unit vectors
    seen: Tensor  # (K,), running mean of how many inputs of a batch fell to a code; all 0 before training
    sums: Tensor  # (K, D), running mean of the inputs' sums

    def __init__(self, codes: int, channels: int = 320, code: int = 32, decay: float = DECAY) -> None:
        super().__init__()
        self.decay = decay
        self.inward = nn.Linear(channels, code)
        self.outward = nn.Linear(code, channels)
        self.register_buffer("codebook", F.normalize(torch.randn(codes, code), dim=1))
        self.register_buffer("seen", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, code))

    def indices(self, z: Tensor) -> Tensor:
        """(B, M, y, x) -> (B, y, x), int64."""
        return self._nearest(self._directions(z))

    def embedded(self, indices_byx: Tensor) -> Tensor:
        """Inverse of `indices`, as near as K codes come: (B, y, x) -> z_hat (B, M, y, x)."""
        z_hat: Tensor = self.outward(F.normalize(self.codebook, dim=1)[indices_byx])
        return z_hat.permute(0, 3, 1, 2)

    def forward(self, z: Tensor, random: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """z -> (z_hat, indices), with slopes through to z; with `random`, the codes learn from z."""
        with torch.autocast(z.device.type, enabled=False):
            directions = self._directions(z.float())
            if random is not None:
                self._learn(directions.detach().flatten(0, 2), random)
            indices_byx = self._nearest(directions)
            codes = F.normalize(self.codebook, dim=1)[indices_byx]
            z_hat: Tensor = self.outward(directions + (codes - directions).detach())
        return z_hat.permute(0, 3, 1, 2), indices_byx

    def _directions(self, z: Tensor) -> Tensor:
        """(B, M, y, x) -> unit vectors (B, y, x, D)."""
        return F.normalize(self.inward(z.permute(0, 2, 3, 1)), dim=-1)

    def _nearest(self, directions: Tensor) -> Tensor:
        return (directions @ F.normalize(self.codebook, dim=1).T).argmax(-1)

    @torch.no_grad()
    def _learn(self, directions: Tensor, random: torch.Generator) -> None:
        """Directions (n, D): moves each code to the mean of what falls to it. Ranks see the sums of all ranks."""
        count, codes = directions.shape[0], self.codebook.shape[0]
        chosen = torch.randint(0, count, (codes,), generator=random).to(directions.device)
        if not bool(self.seen.any()):
            self.codebook.copy_(directions[chosen])
        one_hot = F.one_hot(self._nearest(directions), codes).to(directions.dtype)
        seen, sums = one_hot.sum(0), one_hot.T @ directions
        together = distributed.is_available() and distributed.is_initialized()
        if together:
            for values in (seen, sums):
                distributed.all_reduce(values)
        first = not bool(self.seen.any())
        self.seen.lerp_(seen, 1.0 if first else 1 - self.decay)
        self.sums.lerp_(sums, 1.0 if first else 1 - self.decay)
        used = self.seen > LEAST_SEEN * self.seen.sum() / codes
        moved = torch.where(used[:, None], F.normalize(self.sums, dim=1), directions[chosen])
        # A code that begins anew begins with an even share: else the next step would move it again.
        even = self.seen.sum() / codes
        self.seen.copy_(torch.where(used, self.seen, even))
        self.sums.copy_(torch.where(used[:, None], self.sums, even * moved))
        self.codebook.copy_(moved)
        if together:
            for values in (self.codebook, self.seen, self.sums):
                distributed.broadcast(values, 0)


@dataclass(frozen=True)
class RateShape:
    """One of the rates that weights know."""

    shrink: int  # cells of the latent a side that share an index: 1, 2, 4 or 8
    codes: int  # K


@dataclass(frozen=True)
class Shape:
    """All that the networks of a weights file are made from."""

    rates: tuple[RateShape, ...]
    unet: Mapping[str, object]  # arguments of diffusers' UNet2DConditionModel; in_channels is latent + hyper
    latent: int = 4  # channels, C
    width: int = 192  # of the hyper-encoder
    hyper: int = 320  # channels, M
    code: int = 32  # numbers in a code, D
    decay: float = DECAY
    text: TextShape | None = None  # None: captions are read by an encoder of another file
    modelled: bool = False  # whether the file holds a model of the indices, see perco_indices.py


class Rate(nn.Module):
    """A grid and a codebook: latents <-> indices."""

    def __init__(self, shape: Shape, rate: RateShape) -> None:
        super().__init__()
        self.hyper = HyperEncoder(rate.shrink, shape.latent, shape.width, shape.hyper)
        self.vq = CosineVQ(rate.codes, shape.hyper, shape.code, shape.decay)
        self.indices = IndexModel(rate.codes) if shape.modelled else None


class Perco(nn.Module):
    """Rates, the UNet that all of them share, and the text encoder where it is the codec's own."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.rates = nn.ModuleList(Rate(shape, rate) for rate in shape.rates)
        self.unet = make_unet(shape.unet, shape.latent + shape.hyper, shape.latent)
        self.text = WordEncoder(shape.text) if shape.text else None

    def rate(self, number: int) -> Rate:
        found = self.rates[number]
        assert isinstance(found, Rate)
        return found

    def velocity(self, noisy: Tensor, z_hat: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """What the UNet takes for v, (B, C, h, w).

        Of noisy latents of the same shape, z_hat (B, M, y, x) of a grid that divides theirs, time (B,) in 0 … 999,
        and text (B, n, E).
        """
        shown = F.interpolate(z_hat, size=noisy.shape[2:], mode="nearest")
        seen = torch.cat((noisy, shown.to(noisy.dtype)), 1)
        made: Tensor = self.unet(seen, time, encoder_hidden_states=text, return_dict=False)[0]
        return made


def make_unet(config: Mapping[str, object], channels: int, latent: int) -> nn.Module:
    """An untrained UNet; ValueError where its first convolution does not fit latent and hyper-latent."""
    from diffusers import UNet2DConditionModel

    told = config.get("in_channels"), config.get("out_channels")
    if told != (channels, latent):
        raise ValueError(f"a UNet from {told[0]} to {told[1]} channels, expected from {channels} to {latent}")
    made = UNet2DConditionModel(**config)  # type: ignore[no-untyped-call]
    assert isinstance(made, nn.Module)
    return made


def shape_of(found: Mapping[str, object]) -> Shape:
    """Inverse of `dataclasses.asdict` and JSON; KeyError, TypeError or ValueError where it is no shape."""
    rest = dict(found)
    rates, unet, text = rest.pop("rates"), rest.pop("unet"), rest.pop("text")
    if not isinstance(rates, list | tuple) or not isinstance(unet, Mapping) or not rates:
        raise ValueError("a shape without rates or UNet")
    rate_shapes = tuple(RateShape(**rate) for rate in rates)
    text_shape = TextShape(**text) if isinstance(text, Mapping) else None
    return Shape(rates=rate_shapes, unet=dict(unet), text=text_shape, **rest)  # type: ignore[arg-type]
