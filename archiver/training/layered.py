"""Training of the `layered` codec's enhancer: all scales and qualities at once."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.av1 import decode_still, encode_still
from archiver.codecs.avif import SPEED
from archiver.codecs.layered import CELL, Enhancer, Shape, conditions, enlarged, padded, reduced
from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from archiver.training.losses import FeatureCritic, PixelCritic, hinge_critic, hinge_generator
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


@dataclass(frozen=True)
class Weights:
    """What each loss counts; pixels are in [-1, 1]."""

    l1: float = 1.0
    lpips: float = 1.0
    dists: float = 1.0
    critic: float = 0.03
    critic_from: int = 1500  # step
    dists_from: int = 600
    dists_side: int = 96  # pixels of the windows that VGG sees
    dists_count: int = 2  # windows a batch


class LayeredTask:
    """See `Task`."""

    def __init__(self, shape: Shape, weights: Weights) -> None:
        self.generator = Enhancer(shape)
        self.critic = nn.ModuleDict({"pixels": PixelCritic(3), "features": FeatureCritic((192, 384, 256))})
        self.lpips = LPIPS("alexnet").eval()
        self.dists = DISTS().eval()
        self.weights = weights

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
        weights, target = self.weights, batch["target"]
        made = self.generated(self.generator, batch)
        base = enlarged(batch["small"], target.shape[-1] // batch["small"].shape[-1])
        # AlexNet's first stride is the networks' own 4: at a fixed phase it would not see a grid of 4.
        top, left = (int(torch.randint(0, 4, (), generator=random)) for _ in range(2))
        made_taps = self.lpips.taps(made[..., top:, left:])
        with torch.no_grad():
            real_taps = self.lpips.taps(target[..., top:, left:])
        terms = {
            "l1": (made - target).abs().mean(),
            "lpips": self.lpips.distance(made_taps, real_taps).mean(),
        }
        loss = weights.l1 * terms["l1"] + weights.lpips * terms["lpips"]
        if step >= weights.dists_from:
            terms["dists"] = self._dists(made, target, random)
            loss = loss + weights.dists * terms["dists"]
        if step >= weights.critic_from:
            logits = [self.critic["pixels"](made, base), *self.critic["features"](_chosen(made_taps))]
            terms["adversarial"] = hinge_generator(logits)
            loss = loss + weights.critic * terms["adversarial"]
        self._seen = (made.detach(), base, [tap.detach() for tap in made_taps], real_taps)
        return Step(loss, {name: float(term.detach()) for name, term in terms.items()})

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        # The critic learns for a while before the generator listens.
        if step < self.weights.critic_from - 300:
            return None
        made, base, made_taps, real_taps = self._seen
        pixels, features = self.critic["pixels"], self.critic["features"]
        fake = [pixels(made, base), *features(_chosen(made_taps))]
        real = [pixels(batch["target"], base), *features(_chosen(real_taps))]
        loss = hinge_critic(real, fake)
        return Step(loss, {"critic": float(loss.detach())})

    def _dists(self, made: Tensor, target: Tensor, random: torch.Generator) -> Tensor:
        side, count = min(self.weights.dists_side, made.shape[-1]), self.weights.dists_count
        chosen = torch.randperm(made.shape[0], generator=random)[:count]
        top, left = (int(torch.randint(0, made.shape[-1] - side + 1, (), generator=random)) for _ in range(2))
        first, second = (x[chosen, :, top : top + side, left : left + side] / 2 + 0.5 for x in (made, target))
        distance: Tensor = self.dists(first, second).mean()
        return distance

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean distances of a batch that is never trained on."""
        made = self.generated(network, batch).clamp(-1, 1)
        target = batch["target"]
        mse = F.mse_loss(made, target, reduction="none").mean((1, 2, 3))
        return {
            "lpips": float(self.lpips(made, target).mean()),
            "dists": float(self.dists(made / 2 + 0.5, target / 2 + 0.5).mean()),
            "psnr": float((10 * torch.log10(4 / mse)).mean()),
        }


def _chosen(taps: list[Tensor]) -> list[Tensor]:
    return [taps[1], taps[2], taps[4]]
