"""A training that takes seconds: networks of 8 channels, three photographs."""

import json
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from archiver.codecs.layered_shape import Shape
from archiver.training.layered import LayeredCrops, LayeredTask, LayeredWeights
from archiver.training.layered_fit import StyleFit, fitted
from archiver.training.loop import Run, Schedule
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe
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
    tensors |= {f"critic.{name}": value for name, value in run.modules[1].state_dict().items()}
    return tensors | {f"ema.{name}": value for name, value in run.ema.items()}
