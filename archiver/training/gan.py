"""Training of the `gan` codec: all rates at once, GC and SC together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.autoencoder import Autoencoder, load_autoencoder
from archiver.codecs.gan_labels import clusters, moved, surfaces
from archiver.codecs.gan_networks import (
    CELL,
    Gan,
    Generator,
    Shape,
    quantised,
    there,
    told_of,
)
from archiver.codecs.symbols import LEVELS
from archiver.training.losses import repeated
from archiver.training.perceptual import Judges, Weights
from archiver.training.task import Batch, Step

RATES = (2, 4, 8)  # channels; each batch draws its own
PALETTE_STEPS = 400  # in which the labels are found by k-means


@dataclass(frozen=True)
class GanWeights:
    """What counts besides the pictures themselves."""

    # In the first steps only the picture at 1/8 counts: symbols learn to say something at a third of the cost, before
    # feature distances, which are happy with any texture, are asked. Then SC begins, too.
    sketch_steps: int = 800
    layout: float = (
        2.0  # of the picture at 1/8, afterwards: without it colours and shapes drift while textures grow
    )
    grid: float = 10.0  # of what all cells of a batch have wrong at the same place in them
    bits: float = 0.02  # of a symbol's bits, as `RateModel` sees them
    selective: float = 0.25  # of all crops are SC: a part is drawn from labels alone
    sees_labels: bool = (
        False  # GC(D+), section 3.3: the critic is shown what is where; coding needs no labels
    )


class RateModel(nn.Module):
    """What coding tables could know of a symbol: left, top, and the channels before; for training only."""

    HIDDEN = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.see = nn.Conv2d(channels + 1, channels * self.HIDDEN, 3, padding=1)
        self.say = nn.Conv2d(channels * self.HIDDEN, channels * LEVELS, 1, groups=channels)
        mask = torch.zeros(channels, self.HIDDEN, channels + 1, 3, 3)
        for channel in range(channels):
            mask[channel, :, :channel] = 1
            mask[channel, :, channel].flatten(1)[:, :4] = 1  # the row above, and left
        mask[:, :, channels] = 1
        self.register_buffer("mask", mask.flatten(0, 1))

    def forward(self, w_hat: Tensor, share: Tensor) -> Tensor:
        """Bits of each symbol, (B, C, h, w), with slopes towards centres that are cheaper."""
        inside = torch.ones_like(w_hat[:, :1])  # tells the border, where neighbours are missing
        weight = self.see.weight * self.get_buffer("mask")
        hidden = F.leaky_relu(F.conv2d(torch.cat((w_hat, inside), 1), weight, self.see.bias, padding=1), 0.2)
        logits = self.say(hidden).float().unflatten(1, (-1, LEVELS)).movedim(2, -1)
        bits: Tensor = -(share * torch.log_softmax(logits, -1)).sum(-1) / float(np.log(2))
        return bits


class Trained(nn.Module):
    """The codec's networks, and the model of the rate beside them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.network = Gan(shape)
        self.rate = RateModel(shape.channels)


class GanTask:
    """See `Task`."""

    def __init__(self, shape: Shape, weights: Weights, extra: GanWeights, begin: Path | None = None) -> None:
        """`begin`: an autoencoder whose networks these become, its first channels the ones that are coded."""
        self.shape, self.extra = shape, extra
        self.generator = Trained(shape)
        if begin is not None:
            take_over(self.generator.network, load_autoencoder(begin, torch.device("cpu")))
        self.rates = tuple(count for count in RATES if count <= shape.channels)
        self.judges = Judges(
            weights, shape.channels + (shape.labels if extra.sees_labels else 0), kinds=len(self.rates)
        )
        self.critic = self.judges.critic

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds the rate of all crops, noise, and which cells are drawn from labels (1) or coded (0)."""
        crops, side = batch["target"].shape[0], batch["target"].shape[-1]
        cells = side // CELL
        device = batch["target"].device
        self.judges.to(device)
        rate = self.rates[int(torch.randint(0, len(self.rates), (), generator=random))]
        return batch | {
            "channels": torch.full((crops,), rate, device=device),
            "noise_quarter": torch.randn(crops, 1, side // 4, side // 4, generator=random).to(device),
            "noise_HW": torch.randn(crops, 1, side, side, generator=random).to(device),
            "drawn": boxes(crops, cells, self.extra.selective, random).to(device),
        }

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        """Pictures at the batch's rates, all of them coded whole."""
        assert isinstance(network, Trained)
        gan = network.network
        w_hat, _ = quantised(gan.encode(batch["target"]))
        whole = torch.zeros_like(batch["drawn"])
        return gan.decode(w_hat, whole, batch["channels"], batch["noise_quarter"], batch["noise_HW"])

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        target, gan = batch["target"], self.generator.network
        looks = self._labels(target, step, random)
        w_hat, share = quantised(gan.encode(target))
        if step < self.extra.sketch_steps and isinstance(gan.generator, Generator):
            return self._sketch_loss(gan.generator, batch, w_hat, share)
        labels = looks * batch["drawn"]
        made = gan.decode(w_hat, labels, batch["channels"], batch["noise_quarter"], batch["noise_HW"])
        coded = there(labels, batch["channels"], self.shape.channels)
        rate = self._rate(w_hat, share, coded)
        # A drawn cell need only look like its picture: L1 is for what is coded (section 3.4).
        counts = full_size((labels == 0).float()[:, None])
        beside = self._beside(w_hat * coded, looks)
        kind = self.rates.index(int(batch["channels"][0]))
        judged = self.judges.generator_loss(made, target, beside, step, random, counts, kind)
        layout = _layout(F.avg_pool2d(made, 8), target)
        grid = repeated(made - target)
        loss = judged.loss + self.extra.layout * layout + self.extra.bits * rate + self.extra.grid * grid
        told = {"layout": float(layout.detach()), "bits": float(rate.detach()), "grid": float(grid.detach())}
        return Step(loss, {**judged.terms, **told})

    def _sketch_loss(self, generator: Generator, batch: Batch, w_hat: Tensor, share: Tensor) -> Step:
        channels = batch["channels"]
        whole = torch.zeros_like(batch["drawn"])
        planes = self.generator.network.planes(w_hat, whole, channels, batch["noise_quarter"])
        sketch = generator.sketched(planes, told_of(channels))
        layout = _layout(sketch, batch["target"])
        # The rate model learns; the symbols do not hear of it yet.
        rate = self._rate(w_hat.detach(), share.detach(), there(whole, channels, self.shape.channels))
        terms = {"layout": float(layout.detach()), "bits": float(rate.detach())}
        return Step(layout + self.extra.bits * rate, terms)

    def _rate(self, w_hat: Tensor, share: Tensor, coded: Tensor) -> Tensor:
        """Bits of a coded symbol."""
        rate: Tensor = (self.generator.rate(w_hat * coded, share) * coded).sum() / coded.sum().clamp_min(1)
        return rate

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return self.judges.critic_loss(step) if step >= self.extra.sketch_steps else None

    def _labels(self, target: Tensor, step: int, random: torch.Generator) -> Tensor:
        """Labels 1 … of the target's cells; in the first steps the palette learns from it."""
        palette = self.generator.network.get_buffer("palette")
        with torch.no_grad():
            if step < PALETTE_STEPS:
                seen = surfaces(target, CELL)
                if step == 0:
                    flat = seen.permute(0, 2, 3, 1).flatten(0, 2)
                    chosen = torch.randperm(flat.shape[0], generator=random).repeat(2)[: palette.shape[0]]
                    palette.copy_(flat[chosen])
                after = moved(palette, seen, 0.05)
                palette.copy_(torch.where(after.isfinite(), after, palette))
            return clusters(target, palette, CELL)

    def _beside(self, shown: Tensor, looks: Tensor) -> Tensor:
        """What the critic sees beside the pixels, (B, planes, H, W)."""
        planes = [shown.detach()]
        if self.extra.sees_labels:
            planes.append(F.one_hot(looks - 1, self.shape.labels).permute(0, 3, 1, 2).float())
        return full_size(torch.cat(planes, 1))

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean distances of a batch that is never trained on, at each rate."""
        found: dict[str, float] = {}
        for rate in self.rates:
            same = batch | {"channels": torch.full_like(batch["channels"], rate)}
            made = self.generated(network, same).clamp(-1, 1)
            measured = self.judges.measured(made, batch["target"])
            found |= {f"{name}{rate}": value for name, value in measured.items()}
        return found


@torch.no_grad()
def take_over(gan: Gan, autoencoder: Autoencoder) -> None:
    """The weights of an autoencoder, in place; it has more latents than are coded, and knows of no labels."""
    count, labels = gan.shape.channels, gan.LABEL_PLANES
    given = autoencoder.state_dict()
    stem = gan.generator.get_parameter("stem.weight")
    stem[:, :count] = given["generator.stem.weight"][:, :count]
    stem[:, count : count + labels].mul_(0.1)
    stem[:, count + labels :] = given["generator.stem.weight"][:, autoencoder.shape.channels :]
    for name, value in gan.state_dict().items():
        found = given.get(name)
        if found is None or name == "generator.stem.weight":
            continue
        # Where sizes differ, it is by the number of latents, in the first place.
        value.copy_(found if found.shape == value.shape else found[:count])


def _layout(small: Tensor, target: Tensor) -> Tensor:
    """How far a picture at 1/8 is from the target."""
    apart = small - F.avg_pool2d(target, 8)
    return apart.abs().mean() + 2 * apart.square().mean()


def boxes(crops: int, cells: int, share: float, random: torch.Generator) -> Tensor:
    """(crops, cells, cells) of 0 and 1: in `share` of the crops a box, or all but a box, is 1."""
    drawn = torch.zeros(crops, cells, cells, dtype=torch.long)
    for place in range(crops):
        box = boxed(cells, cells, random)
        if float(torch.rand((), generator=random)) < share:
            drawn[place] = box
    return drawn


def boxed(height: int, width: int, random: torch.Generator) -> Tensor:
    """(height, width) of 0 and 1: a random box is 1, or all but a box (RB, section 4)."""
    drawn = torch.zeros(height, width, dtype=torch.long)
    (h,), (w,) = (
        torch.randint(max(1, side // 3), side + 1, (1,), generator=random).tolist()
        for side in (height, width)
    )
    top = int(torch.randint(0, height - h + 1, (), generator=random))
    left = int(torch.randint(0, width - w + 1, (), generator=random))
    drawn[top : top + h, left : left + w] = 1
    return drawn if float(torch.rand((), generator=random)) < 0.5 else 1 - drawn


def full_size(cells: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), each cell repeated."""
    return F.interpolate(cells, scale_factor=CELL, mode="nearest")
