"""A recipe: all that a training needs besides photographs; with these -> a run -> weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from archiver.codecs.networks import save_network
from archiver.training.loop import Run, Schedule
from archiver.training.photos import licences, list_photos
from archiver.training.ranks import join_ranks
from archiver.training.stream import Crops, Feed
from archiver.training.task import Task
from archiver.weights import named_weights
from manifests.storage import Location
from pipelines.weights import sha256_of_file


@dataclass(frozen=True)
class Recipe:
    """All that a training needs besides photographs."""

    name: str
    task: Callable[[Mapping[str, Path]], Task]  # of the weights files of `parts`
    crops: Crops
    crop: int  # pixels a side
    batch: int  # crops
    schedule: Schedule
    shape: Mapping[str, object]  # the network's, as its weights file tells it
    network: Callable[[Run], nn.Module] = Run.averaged  # what of a finished run the codec loads
    parts: tuple[str, ...] = ()  # weights that it builds on: by default those that come with the program
    packed: bool = False  # int8 instead of fp16: half the bytes, of every archive, too


def start(
    recipe: Recipe,
    source: Location,
    out: Path,
    device: torch.device,
    steps: int | None = None,
    parts: Mapping[str, Path] | None = None,
) -> Run:
    """A run at its first step; `loop.train` takes it to where `out/checkpoint.pt` stands.

    `parts` are weights to build on in place of those that come with the program; ValueError where some are missing.
    """
    found = dict(parts or {})
    if unknown := sorted(set(found) - set(recipe.parts)):
        raise ValueError(
            f"recipe {recipe.name} builds on {', '.join(recipe.parts) or 'nothing'}, not on {unknown[0]}"
        )
    for name in recipe.parts:
        if name not in found:
            try:
                found[name] = named_weights(name)
            except ValueError as error:
                raise ValueError(
                    f"recipe {recipe.name} builds on {name}: --part {name}=FILE ({error})"
                ) from None
    torch.manual_seed(1)  # of the first weights
    photos = list_photos(source)
    ranks, device = join_ranks(device)
    feed = Feed(source, tuple(photos), recipe.crops, recipe.crop, recipe.batch)
    schedule = replace(recipe.schedule, steps=steps) if steps else recipe.schedule
    run = Run(recipe.task(found), feed, schedule, out, device, ranks)
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "recipe": recipe.name,
        "source": str(source),
        "photographs": len(photos),
        "licences": licences(photos),
        "crop": recipe.crop,
        "batch": recipe.batch,
        "parts": {name: sha256_of_file(file) for name, file in found.items() if file.is_file()},
        "schedule": asdict(schedule),
    }
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    return run


def export(recipe: Recipe, run: Run) -> Path:
    """Writes the averaged weights as the codec loads them, in fp16 or int8."""
    file = run.out / f"{recipe.name}.safetensors"
    save_network(recipe.network(run), recipe.shape, file, recipe.packed)
    return file
