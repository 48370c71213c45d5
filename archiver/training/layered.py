"""Training of the `layered` codec's enhancer: all scales and qualities at once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archiver.codecs.av1 import decode_still, encode_still
from archiver.codecs.layered import (
    CELL,
    SPEED,
    Enhancer,
    Shape,
    conditions,
    enlarged,
    load_enhancer,
    padded,
    reduced,
)
from archiver.training.losses import repeated
from archiver.training.perceptual import Judges, Weights
from archiver.training.stream import Arrays, windows
from archiver.training.task import Batch, Step
from pipelines.codec import Pixels

QUALITIES = {2: (6, 34), 4: (10, 66), 8: (16, 56)}  # scale -> lowest and highest quality that is trained


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
        bitstream = encode_still(image, "4:2:0", quality, SPEED)
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
        }


class LayeredTask:
    """See `Task`."""

    def __init__(self, shape: Shape, weights: Weights, begin: Path | None = None, grid: float = 0.0) -> None:
        """`begin`: an enhancer of fewer blocks, which this one draws like at first.

        `grid` is the weight of what all cells of a batch have wrong at the same place in them.
        """
        self.grid = grid
        self.generator = Enhancer(shape)
        if begin is not None:
            grow(self.generator, load_enhancer(begin, torch.device("cpu")))
        self.judges = Judges(weights, beside=3)
        self.critic = self.judges.critic

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds the noise that the enhancer is given."""
        crops, side = batch["target"].shape[0], batch["target"].shape[-1]
        device = batch["target"].device
        return batch | {
            "noise_hw": torch.randn(crops, 1, side // 4, side // 4, generator=random).to(device),
            "noise_HW": torch.randn(crops, 1, side, side, generator=random).to(device),
        }

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        small, target = batch["small"], batch["target"]
        scale = target.shape[-1] // small.shape[-1]
        made: Tensor = network(small, scale, batch["told"], batch["noise_hw"], batch["noise_HW"])
        return made

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        target = batch["target"]
        made = self.generated(self.generator, batch)
        base = enlarged(batch["small"], target.shape[-1] // batch["small"].shape[-1])
        judged = self.judges.generator_loss(made, target, base, step, random)
        if not self.grid:
            return judged
        grid = repeated(made - target)
        return Step(judged.loss + self.grid * grid, {**judged.terms, "grid": float(grid.detach())})

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return self.judges.critic_loss(step)

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean distances of a batch that is never trained on."""
        return self.judges.measured(self.generated(network, batch).clamp(-1, 1), batch["target"])


@torch.no_grad()
def grow(enhancer: Enhancer, smaller: Enhancer) -> None:
    """The weights of one with fewer blocks, in place; blocks that it lacks add nothing yet."""
    missing, unknown = enhancer.load_state_dict(smaller.state_dict(), strict=False)
    strange = [*unknown, *(name for name in missing if not name.startswith(("before.", "inside.", "after.")))]
    if strange:
        raise ValueError(f"weights to begin with and the network do not share {strange[0]}")
    for name in missing:
        if ".narrow." in name:
            enhancer.get_parameter(name).zero_()
