"""How made pictures are judged in training: L1, LPIPS, DISTS on windows, and hinge critics on pixels and features."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.perception.dists import CHANNELS, DISTS, squared
from archiver.perception.lpips import LPIPS
from archiver.training.losses import FeatureCritic, PixelCritic, hinge_critic, hinge_generator
from archiver.training.task import Step


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
    dists_count: int = 1  # windows a batch
    mosaic: float = 0.0  # of DISTS of the latest windows together, see `Mosaic`


class Mosaic(nn.Module):
    """DISTS of the windows seen lately, as if they were one picture; of each kind of picture apart.

    The mean of a feature over a window is uncertain, and of heavy tails: what suits DISTS of single windows best is
    less than its expectation. Over a picture, which DISTS is taken of in the end, such lacks add up. Here the windows'
    errors that are chance cancel, and what they have in common is left.

    Kept with the critics: running means of features, of their squares and of their products.
    """

    KEPT = 0.9  # a batch

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.register_buffer("moments", torch.zeros(kinds, 5, CHANNELS))
        self.register_buffer("seen", torch.zeros(kinds))

    def forward(self, dists: DISTS, moments: Tensor, kind: int) -> Tensor:
        """`moments` (5, B, C); the slope is that of a distance in which this batch is all there is."""
        before, seen = self.get_buffer("moments"), self.get_buffer("seen")
        now = self.KEPT * before[kind] + (1 - self.KEPT) * (moments + squared(moments)).mean(1)
        total = self.KEPT * seen[kind] + (1 - self.KEPT)
        if bool(torch.isfinite(now).all()):  # else one bad batch would be remembered for ever
            before[kind], seen[kind] = now.detach(), total
        together = now / total
        distance: Tensor = dists.apart((together - squared(together))[:, None])[0]
        slope = total / (1 - self.KEPT)
        return distance.detach() + slope * (distance - distance.detach())


class Judges:
    """Frozen distances and learning critics; the latter see `beside` planes of what a picture was made from."""

    def __init__(self, weights: Weights, beside: int, kinds: int = 1) -> None:
        self.weights = weights
        self.critic = nn.ModuleDict(
            {"pixels": PixelCritic(beside), "features": FeatureCritic((192, 384, 256))}
        )
        if weights.mosaic:
            self.critic["mosaic"] = Mosaic(kinds)
        self.lpips = LPIPS("alexnet").eval()
        self.dists = DISTS().eval()

    def to(self, device: torch.device) -> None:
        """Moves the distances; the critics are moved as a part of the task."""
        self.lpips.to(device)
        self.dists.to(device)

    def generator_loss(
        self,
        made: Tensor,
        target: Tensor,
        beside: Tensor,
        step: int,
        random: torch.Generator,
        counts: Tensor | None = None,
        kind: int = 0,
    ) -> Step:
        """`counts` (B, 1, H, W): 0 where a pixel need not be the target's own; `kind`: which `Mosaic` it belongs to."""
        weights = self.weights
        # AlexNet's first stride is the networks' own 4: at a fixed phase it would not see a grid of 4.
        top, left = (int(torch.randint(0, 4, (), generator=random)) for _ in range(2))
        made_taps = self.lpips.taps(made[..., top:, left:])
        with torch.no_grad():
            real_taps = self.lpips.taps(target[..., top:, left:])
        apart = (made - target).abs()
        terms = {
            "l1": (apart if counts is None else apart * counts).mean(),
            "lpips": self.lpips.distance(made_taps, real_taps).mean(),
        }
        loss = weights.l1 * terms["l1"] + weights.lpips * terms["lpips"]
        if step >= weights.dists_from:
            moments = self._moments(made, target, random)
            terms["dists"] = self.dists.apart(moments).mean()
            loss = loss + weights.dists * terms["dists"]
            if weights.mosaic:
                terms["mosaic"] = self.critic["mosaic"](self.dists, moments, kind)
                loss = loss + weights.mosaic * terms["mosaic"]
        if step >= weights.critic_from:
            logits = [self.critic["pixels"](made, beside), *self.critic["features"](_chosen(made_taps))]
            terms["adversarial"] = hinge_generator(logits)
            loss = loss + weights.critic * terms["adversarial"]
        self._seen = (made.detach(), target, beside, [tap.detach() for tap in made_taps], real_taps)
        return Step(loss, {name: float(term.detach()) for name, term in terms.items()})

    def critic_loss(self, step: int) -> Step | None:
        """Of the batch that `generator_loss` has just seen."""
        # The critic learns for a while before the generator listens.
        if step < self.weights.critic_from - 300:
            return None
        made, target, beside, made_taps, real_taps = self._seen
        pixels, features = self.critic["pixels"], self.critic["features"]
        fake = [pixels(made, beside), *features(_chosen(made_taps))]
        real = [pixels(target, beside), *features(_chosen(real_taps))]
        loss = hinge_critic(real, fake)
        return Step(loss, {"critic": float(loss.detach())})

    def _moments(self, made: Tensor, target: Tensor, random: torch.Generator) -> Tensor:
        """Of windows of both, see `DISTS`."""
        side, count = min(self.weights.dists_side, made.shape[-1]), self.weights.dists_count
        chosen = torch.randperm(made.shape[0], generator=random)[:count]
        top, left = (int(torch.randint(0, made.shape[-1] - side + 1, (), generator=random)) for _ in range(2))
        first, second = (x[chosen, :, top : top + side, left : left + side] / 2 + 0.5 for x in (made, target))
        return self.dists.moments(self.dists.taps(first), self.dists.taps(second))

    def measured(self, made: Tensor, target: Tensor) -> dict[str, float]:
        """Mean distances of pictures in [-1, 1]."""
        mse = F.mse_loss(made, target, reduction="none").mean((1, 2, 3))
        return {
            "lpips": float(self.lpips(made, target).mean()),
            "dists": float(self.dists(made / 2 + 0.5, target / 2 + 0.5).mean()),
            "psnr": float((10 * torch.log10(4 / mse)).mean()),
        }


def _chosen(taps: list[Tensor]) -> list[Tensor]:
    return [taps[1], taps[2], taps[4]]
