"""Training of the embedded autoencoder: first for the squared error, then for what eyes see."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.autoencoder import Autoencoder, load_autoencoder
from archiver.codecs.gan_networks import CELL, Shape
from archiver.training.perceptual import Judges, Weights
from archiver.training.run import Run, tensors_of
from archiver.training.stream import block_of
from archiver.training.task import Batch, Step

NOISE = 0.1  # standard deviation of what is added to bounded latents
FITTED_BLOCKS = 8  # of crops, that latents are normalised over


class AutoencoderTask:
    """See `Task`; without `weights` for the squared error alone, which judges nothing else."""

    def __init__(self, shape: Shape, weights: Weights | None, begin: Path | None = None) -> None:
        self.generator = Autoencoder(shape)
        if begin is not None:
            begun = load_autoencoder(begin, torch.device("cpu"))
            self.generator.load_state_dict(begun.state_dict())
            for name, value in (("mean", 0.0), ("scale", 1.0)):  # of other latents than these will be
                self.generator.get_buffer(name).fill_(value)
        self.judges = Judges(weights or Weights(), beside=3) if weights else None
        self.critic = self.judges.critic if self.judges else None

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds the noise of latents and of the generator."""
        crops, side = batch["target"].shape[0], batch["target"].shape[-1]
        sizes = {
            "noise_latents": (crops, self.generator.shape.channels, side // CELL, side // CELL),
            "noise_quarter": (crops, 1, side // 4, side // 4),
            "noise_HW": (crops, 1, side, side),
        }
        device = batch["target"].device
        if self.judges:
            self.judges.to(device)
        return batch | {name: torch.randn(*size, generator=random).to(device) for name, size in sizes.items()}

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, Autoencoder)
        latents = network.encode(batch["target"])
        shaken = latents + NOISE * batch["noise_latents"]
        return network.decode(shaken, batch["noise_quarter"], batch["noise_HW"])

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        made, target = self.generated(self.generator, batch), batch["target"]
        if self.judges is None:
            mse = F.mse_loss(made, target)
            return Step(mse, {"mse": float(mse.detach())})
        base = F.interpolate(F.avg_pool2d(target, 8), scale_factor=8, mode="bicubic", align_corners=False)
        return self.judges.generator_loss(made, target, base, step, random)

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return self.judges.critic_loss(step) if self.judges else None

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        made, target = self.generated(network, batch).clamp(-1, 1), batch["target"]
        if self.judges is None:
            mse = (made - target).square().mean((1, 2, 3))
            return {"psnr": float((10 * torch.log10(4 / mse)).mean())}
        return self.judges.measured(made, target)


@torch.no_grad()
def fitted(run: Run) -> nn.Module:
    """The averaged weights of a run, with the mean and scale that its latents have over photographs."""
    network = copy.deepcopy(run.averaged())
    assert isinstance(network, Autoencoder)
    found = []
    for number in range(FITTED_BLOCKS):
        crops = tensors_of(block_of(run.feed, number), run.device)["target"]
        found.append(network.encode(crops).movedim(1, 0).flatten(1))
    latents = torch.cat(found, 1)
    network.get_buffer("mean").copy_(latents.mean(1))
    network.get_buffer("scale").copy_(latents.std(1))
    return network
