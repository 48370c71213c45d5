"""Training of the `layered` codec's networks: all scales and qualities at once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archiver.codecs.av1 import decode_still
from archiver.codecs.drawing import enlarged
from archiver.codecs.latent_model import ContextModel, bits_of, noisy, whole
from archiver.codecs.layered import load_enhancer
from archiver.codecs.layered_base import based, padded, reduced
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import BANDS, CELL, CONTEXT_WIDTH, SCALES, SLICES, Shape, band, conditions
from archiver.training.losses import repeated
from archiver.training.perceptual import Judges, Weights
from archiver.training.stream import Arrays, windows
from archiver.training.task import Batch, Step
from pipelines.codec import Pixels

# Scale -> lowest and highest quality that is trained: around those of the presets.
QUALITIES = {2: (2, 26), 4: (0, 14), 8: (8, 48)}


@dataclass(frozen=True)
class LayeredCrops:
    """Crops of a photograph and of its base, which AV1 has coded whole."""

    crop: int
    scales: tuple[tuple[int, float], ...]  # (scale, how often)

    def __call__(
        self, pixels_hwc: Pixels, caption: str | None, count: int, block_seed: int, seed: int
    ) -> Arrays:
        odds = np.array([often for _, often in self.scales])
        place = np.random.default_rng(block_seed).choice(len(odds), p=odds / odds.sum())
        scale = self.scales[int(place)][0]
        rng = np.random.default_rng(seed)
        whole = padded(pixels_hwc)
        quality = int(rng.integers(QUALITIES[scale][0], QUALITIES[scale][1] + 1))
        image = reduced(whole, scale)
        bitstream = based(image, "4:2:0", quality)
        base = np.asarray(decode_still(bitstream, image.height, image.width).convert("RGB"))
        small, side = self.crop // scale, self.crop
        corners = windows(whole.shape[0], whole.shape[1], side, CELL, count, rng)
        told = conditions(scale, quality, len(bitstream), image.height * image.width)
        return {
            "target": np.stack([whole[y : y + side, x : x + side] for y, x in corners]),
            "small": np.stack(
                [base[y // scale : y // scale + small, x // scale : x // scale + small] for y, x in corners]
            ),
            "told": np.array([told] * count, dtype=np.float32),
            "band": np.full(count, band(scale, quality), dtype=np.int64),
        }


@dataclass(frozen=True)
class LayeredWeights:
    """What counts besides the pictures themselves."""

    grid: float = 0.0  # of what all cells of a batch have wrong at the same place in them
    # Pixels, whole cells, at the edges of a crop that count nothing: what networks draw there the decoder cuts off.
    margin: int = 0
    # Of the side bits of a pixel, in the end, by the base's scale: as much as bits of the base are worth there.
    bits: tuple[tuple[int, float], ...] = ((2, 6.0), (4, 12.0), (8, 12.0))
    # Until this step side bits are free, and until the next their price rises: priced from the beginning, symbols fell
    # silent within 300 steps, before the enhancer had learned to listen.
    bits_from: int = 500
    bits_whole: int = 2400


class Trained(nn.Module):
    """The codec's networks, and the model of the side symbols before it is whole numbers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.enhancer = Enhancer(shape)
        self.context = (
            ContextModel(shape.side, SLICES, len(SCALES) * BANDS, CONTEXT_WIDTH) if shape.side else None
        )


class LayeredTask:
    """See `Task`."""

    def __init__(
        self,
        shape: Shape,
        weights: Weights,
        extra: LayeredWeights = LayeredWeights(),
        begin: Path | None = None,
    ) -> None:
        """`begin`: an enhancer with less to it, which this one draws like at first."""
        self.extra = extra
        self.generator = Trained(shape)
        if begin is not None:
            grow(self.generator.enhancer, load_enhancer(begin, torch.device("cpu")))
        self.judges = Judges(weights, beside=3, kinds=len(SCALES))
        self.critic = self.judges.critic

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds the noise that the enhancer is given, and what stands for rounding."""
        crops, side = batch["target"].shape[0], batch["target"].shape[-1]
        device = batch["target"].device
        self.judges.to(device)
        symbols = self.generator.enhancer.shape.side, side // CELL, side // CELL
        return batch | {
            "noise_hw": torch.randn(crops, 1, side // 4, side // 4, generator=random).to(device),
            "noise_HW": torch.randn(crops, 1, side, side, generator=random).to(device),
            "noise_y": torch.rand(crops, *symbols, generator=random).to(device),
        }

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, Trained)
        y = self._observed(network, batch)
        return self._drawn(network, None if y is None else whole(y), batch)

    def _observed(self, network: Trained, batch: Batch) -> Tensor | None:
        """Side symbols, not yet rounded, where the network has any."""
        if network.enhancer.observer is None:
            return None
        y: Tensor = network.enhancer.observer(batch["target"], _base(batch), batch["told"])
        return y.float()

    def _drawn(self, network: Trained, symbols: Tensor | None, batch: Batch) -> Tensor:
        small = batch["small"]
        scale = batch["target"].shape[-1] // small.shape[-1]
        made: Tensor = network.enhancer(
            small, symbols, scale, batch["told"], batch["noise_hw"], batch["noise_HW"]
        )
        return made

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        extra, target = self.extra, batch["target"]
        y = self._observed(self.generator, batch)
        drawn = self._drawn(self.generator, None if y is None else whole(y), batch)
        made, real, base = (self.inner(x) for x in (drawn, target, _base(batch)))
        kind = SCALES.index(target.shape[-1] // batch["small"].shape[-1])
        judged = self.judges.generator_loss(made, real, base, step, random, kind=kind)
        loss, terms = judged.loss, dict(judged.terms)
        if extra.grid:
            grid = repeated(made - real)
            loss = loss + extra.grid * grid
            terms["grid"] = float(grid.detach())
        if y is not None:
            bpp, relaxed = self._bits(self.generator, y, batch)
            share = (step - extra.bits_from) / (extra.bits_whole - extra.bits_from)
            full = dict(extra.bits)[target.shape[-1] // batch["small"].shape[-1]]
            price = full * min(1.0, max(0.0, share))
            loss = loss + bpp + price * relaxed
            terms["bpp"] = float(bpp.detach())
        return Step(loss, terms)

    def inner(self, x: Tensor) -> Tensor:
        """What counts of a crop (B, C, H, W)."""
        edge = self.extra.margin
        return x[..., edge : x.shape[-2] - edge, edge : x.shape[-1] - edge]

    def _bits(self, network: Trained, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Side bits a pixel: of rounded symbols, which teach the model; with noise for rounding, which teach y."""
        assert network.context is not None
        symbols = whole(y).detach()
        with torch.autocast(y.device.type, enabled=False):
            means, scales = network.context(symbols, batch["band"])
            bits = bits_of(symbols, means, scales)
            relaxed = bits_of(noisy(y, batch["noise_y"]), means.detach(), scales.detach())
        area = batch["target"][:, :1].numel()
        return bits.sum() / area, relaxed.sum() / area

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return self.judges.critic_loss(step)

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean distances of a batch that is never trained on."""
        assert isinstance(network, Trained)
        y = self._observed(network, batch)
        made = self._drawn(network, None if y is None else whole(y), batch).clamp(-1, 1)
        found = self.judges.measured(self.inner(made), self.inner(batch["target"]))
        return found if y is None else found | {"bpp": float(self._bits(network, y, batch)[0])}


def _base(batch: Batch) -> Tensor:
    return enlarged(batch["small"], batch["target"].shape[-1] // batch["small"].shape[-1])


NEW = ("before.", "inside.", "after.", "deep.", "observer.", "entropy.")


@torch.no_grad()
def grow(enhancer: Enhancer, smaller: Enhancer) -> None:
    """The weights of one that lacks some blocks, in place; those that it lacks add nothing, or little, yet.

    Its style stays behind: directions are found again when training is over.
    """
    known = {
        name: value
        for name, value in smaller.state_dict().items()
        if ".styled." not in name and not name.startswith("styles.")
    }
    missing, unknown = enhancer.load_state_dict(known, strict=False)
    strange = [*unknown, *(name for name in missing if not name.startswith(NEW))]
    if strange:
        raise ValueError(f"weights to begin with and the network do not share {strange[0]}")
    for name in missing:
        if name.startswith(("before.", "inside.", "after.")) and ".narrow." in name:
            enhancer.get_parameter(name).zero_()
