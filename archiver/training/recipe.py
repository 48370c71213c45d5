"""A recipe: all that a training needs besides photographs; with these -> a run -> weights."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from archiver.codecs.networks import save_network
from archiver.training.checkpoint import put_in_place
from archiver.training.photos import Photo, licences, list_photos
from archiver.training.ranks import join_ranks
from archiver.training.run import Run, Schedule
from archiver.training.stream import Crops, Feed
from archiver.training.task import Task
from archiver.weights import named_weights
from manifests.storage import Location, locate
from pipelines.listing import check_apart
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

    `parts` are weights to build on in place of those that come with the program; ValueError where some are missing, and
    where the run would write into its source or the other way round.
    """
    try:
        check_apart(source, locate(str(out)))
    except ValueError:
        raise ValueError(
            f"source {source} and --out {out}, expected neither to lie within the other"
        ) from None
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
    facts = {
        "recipe": recipe.name,
        "source": str(source),
        "photographs": len(photos),
        "listing": _listing(photos),
        "licences": licences(photos),
        "crop": recipe.crop,
        "batch": recipe.batch,
        "parts": {name: sha256_of_file(file) for name, file in found.items() if file.is_file()},
        "schedule": asdict(schedule),
    }
    return Run(recipe.task(found), feed, schedule, out, device, ranks, facts)


def _listing(photos: Sequence[Photo]) -> str:
    """SHA-256 of what a training sees of a list of photographs."""
    return hashlib.sha256(json.dumps([(photo.path, photo.caption) for photo in photos]).encode()).hexdigest()


def export(recipe: Recipe, run: Run) -> Path:
    """Writes the averaged weights as the codec loads them, in fp16 or int8."""
    file = run.out / f"{recipe.name}.safetensors"
    network = recipe.network(run)
    with put_in_place(file) as unfinished:
        save_network(network, recipe.shape, unfinished, recipe.packed)
    return file
