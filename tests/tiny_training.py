"""Trainings that take seconds, of three photographs: networks of 8 channels, and a toy that learns a mean colour."""

import json
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from archiver.codecs.layered_shape import Shape
from archiver.training.layered import LayeredCrops, LayeredTask, LayeredWeights
from archiver.training.layered_fit import StyleFit, fitted
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe
from archiver.training.run import Run, Schedule
from archiver.training.stream import PlainCrops
from archiver.training.task import Batch, Step
from tests.samples import photograph

SHAPE = {
    "fine": 8,
    "coarse": 8,
    "fine_blocks": 1,
    "coarse_blocks": 1,
    "deep": 8,
    "deep_blocks": 1,
    "edges": 1,
    "side": 3,
}
TINY = Recipe(
    "tiny",
    task=lambda _: LayeredTask(
        Shape(**SHAPE),
        Weights(dists_from=1, critic_from=2, dists_side=32, dists_count=1, mosaic=1.0),
        LayeredWeights(grid=1.0, bits_from=1, bits_whole=4),
    ),
    crops=LayeredCrops(64, scales=((2, 0.5), (4, 0.5))),
    crop=64,
    batch=4,
    schedule=Schedule(steps=6, warm_up=2, cool_down=2, check_steps=4, save_seconds=0),
    shape=SHAPE | {"style": 2, "style_cells": 4},
    network=partial(fitted, style=StyleFit(style=2, cells=4, pairs=3, steps=1)),
)


class Toy(nn.Module):
    """Two weights, one of which is frozen at step `FROZEN`, and all kinds of things to remember."""

    FROZEN = 2
    first: Tensor  # (3,), of the first batch
    mean: Tensor  # (3,), a running one
    seen: Tensor  # a whole number that follows from the latest batch

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.early = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("first", torch.zeros(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int16))


class ToyTask:
    """See `Task`: the generator, which is its own picture, becomes the mean colour."""

    def __init__(self) -> None:
        self.generator = Toy()
        self.critic = None

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        return batch

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        colour = network.get_parameter("colour") + network.get_parameter("early")
        return colour[:, None, None].expand_as(batch["target"])

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        toy, target = self.generator, batch["target"].mean((0, 2, 3))
        toy.early.requires_grad_(step < Toy.FROZEN)
        if step == 0:
            toy.first.copy_(target)
        toy.mean.lerp_(target, 0.1)
        toy.seen.fill_(int(target.sum() * 1000))
        loss = (toy.colour + toy.early - target).square().mean()
        return Step(loss, {"loss": float(loss.detach())})

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return None

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        return {}


TOY = Recipe(
    "toy",
    task=lambda _: ToyTask(),
    crops=PlainCrops(16),
    crop=16,
    batch=4,
    schedule=Schedule(steps=6, rate=1e-2, warm_up=1, cool_down=1, save_seconds=0),
    shape={},
)


def write_photographs(parent: Path) -> Path:
    """A folder of three photographs with a list beside it that tells their licences."""
    folder = parent / "train"
    folder.mkdir()
    told = []
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(photograph(name)).save(folder / f"{name}.png")
        told.append({"file": f"{name}.png", "licence": "CC0", "credit": "NASA", "caption": f"A {name}."})
    (folder.parent / "train.jsonl").write_text("\n".join(map(json.dumps, told)))
    return folder


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    tensors = {f"generator.{name}": value for name, value in run.modules[0].state_dict().items()}
    for critic in run.modules[1:]:
        tensors |= {f"critic.{name}": value for name, value in critic.state_dict().items()}
    return tensors | {f"ema.{name}": value for name, value in run.ema.items()}
