"""What trainings are set to, one table; a recipe and photographs -> a run -> weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from archiver.codecs.autoencoder import SHAPE as AUTOENCODER
from archiver.codecs.gan_networks import Shape as GanShape
from archiver.codecs.layered_shape import CELL, Shape
from archiver.codecs.networks import save_network
from archiver.codecs.perco_import import RATES as PERCO_RATES
from archiver.codecs.sprdiff_shape import FOUNDATION
from archiver.codecs.sprdiff_shape import Shape as SprdiffShape
from archiver.training.autoencoder import AutoencoderTask
from archiver.training.autoencoder import fitted as normalised
from archiver.training.gan import GanTask, GanWeights
from archiver.training.gan_fit import fitted
from archiver.training.layered import LayeredCrops, LayeredTask, LayeredWeights
from archiver.training.layered_fit import StyleFit
from archiver.training.layered_fit import fitted as layered_fitted
from archiver.training.loop import Run, Schedule
from archiver.training.perceptual import Weights
from archiver.training.perco import TINY as PERCO_TINY
from archiver.training.perco import PercoCrops, PercoWeights, embedded_task
from archiver.training.perco_fit import fitted as perco_fitted
from archiver.training.perco_sd import PARTS as PERCO_SD_PARTS
from archiver.training.perco_sd import foundation_task, shape_of_rate, weights_of_rate
from archiver.training.photos import licences, list_photos
from archiver.training.ranks import join_ranks
from archiver.training.sprdiff import SprdiffTask, SprdiffWeights, embedded_eyes, published
from archiver.training.sprdiff_fit import fitted as frozen
from archiver.training.stream import Crops, Feed, PlainCrops
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


def _perco_sd(rate: str) -> Recipe:
    """For GPUs of 80 GB, or smaller ones with more parts; a batch is 160 with 8 processes (the public code's)."""
    shape = shape_of_rate(rate)
    return Recipe(
        f"perco-sd-{rate}",
        task=lambda parts: foundation_task(shape, weights_of_rate(rate), parts),
        crops=PercoCrops(512),
        crop=512,
        batch=20,
        schedule=Schedule(
            steps=50_000,
            rate=1e-5,
            warm_up=10_000,
            cool_down=1,
            ema=0.9999,
            betas=(0.9, 0.999),
            decay=1e-2,
            parts=5,
        ),
        shape=asdict(replace(shape, modelled=True)),
        network=perco_fitted,
        parts=PERCO_SD_PARTS,
    )


_DEEPER = Shape(coarse_blocks=16)
_SIDED = replace(_DEEPER, deep_blocks=6, side=6, edges=1)
_TEXTURES = Weights(l1=0.1, dists=2.5, dists_from=0, dists_count=3, critic=0.02, critic_from=500)
# On whole pictures DISTS compares statistics of large areas: small windows punish texture that is not in its place.
_LARGER = replace(_TEXTURES, l1=0.12, lpips=2.7, dists=4.0, dists_side=224, dists_count=2, mosaic=4.0)
_PRICED = LayeredWeights(grid=35.0, margin=CELL, bits=((2, 7.0), (4, 14.0), (8, 14.0)))
_PAPER = GanShape(width=60, blocks=9, paper=1)

RECIPES: tuple[Recipe, ...] = (
    # The networks in three steps: the second has twice the blocks, less L1, more of DISTS, and minds grids; the third
    # adds side symbols and the level at 1/16 where the enhancer listens to them, and in the end a style.
    Recipe(
        "layered-1",
        task=lambda _: LayeredTask(Shape(), Weights()),
        crops=LayeredCrops(128, scales=((2, 0.3), (4, 0.7))),
        crop=128,
        batch=8,
        schedule=Schedule(steps=13_700, cool_down=2_300, rate=8e-4),
        shape=asdict(Shape()),
        network=layered_fitted,
    ),
    Recipe(
        "layered-2",
        task=lambda parts: LayeredTask(
            _DEEPER, _TEXTURES, LayeredWeights(grid=30.0), begin=parts["layered-1"]
        ),
        crops=LayeredCrops(128, scales=((2, 0.5), (4, 0.5))),
        crop=128,
        batch=8,
        schedule=Schedule(steps=5_100, cool_down=4_000, rate=6e-4),
        shape=asdict(_DEEPER),
        network=layered_fitted,
        parts=("layered-1",),
    ),
    Recipe(
        "layered",
        task=lambda parts: LayeredTask(_SIDED, _LARGER, _PRICED, begin=parts["layered-2"]),
        crops=LayeredCrops(256, scales=((2, 0.6), (4, 0.4))),
        crop=256,
        batch=2,
        schedule=Schedule(steps=11_000, cool_down=5_000, rate=5e-4),
        shape=asdict(replace(_SIDED, style=StyleFit.style)),
        network=partial(layered_fitted, style=StyleFit()),
        parts=("layered-2",),
        packed=True,
    ),
    Recipe(
        "gan",
        task=lambda parts: GanTask(
            GanShape(),
            replace(_LARGER, l1=0.3, lpips=2.0, dists=2.5, mosaic=2.5, critic_from=600),
            GanWeights(sketch_steps=0, layout=3.0, grid=40.0),
            parts["autoencoder"],
        ),
        crops=PlainCrops(256),
        crop=256,
        batch=2,
        schedule=Schedule(steps=10_900, rate=4e-4, cool_down=3_500),
        shape=asdict(GanShape()),
        network=fitted,
        parts=("autoencoder",),
    ),
    # The autoencoder of the embedded diffusion codecs, in two steps.
    Recipe(
        "autoencoder-mse",
        task=lambda _: AutoencoderTask(AUTOENCODER, None),
        crops=PlainCrops(128),
        crop=128,
        batch=16,
        schedule=Schedule(steps=1_300, rate=1e-3, cool_down=600),
        shape=asdict(AUTOENCODER),
        network=normalised,
    ),
    Recipe(
        "autoencoder",
        task=lambda parts: AutoencoderTask(
            AUTOENCODER, Weights(l1=1.0, dists_from=0, critic_from=600), parts["autoencoder-mse"]
        ),
        crops=PlainCrops(128),
        crop=128,
        batch=8,
        schedule=Schedule(steps=1_500, rate=5e-4, cool_down=800),
        shape=asdict(AUTOENCODER),
        network=normalised,
        parts=("autoencoder-mse",),
    ),
    Recipe(
        "sprdiff-tiny",
        task=lambda parts: SprdiffTask(
            SprdiffShape(),
            Weights(l1=2.0, dists_from=2_700, critic_from=3_000),
            SprdiffWeights(),
            embedded_eyes(parts),
        ),
        crops=PlainCrops(192),
        crop=192,
        batch=4,
        schedule=Schedule(steps=8_000, rate=5e-4, cool_down=2_200, betas=(0.9, 0.99)),
        shape=asdict(SprdiffShape()),
        network=frozen,
        parts=("autoencoder", "autoencoder-mse"),
    ),
    # Grids of 16 and of 32 pixels, one UNet.
    Recipe(
        "perco-tiny",
        task=lambda parts: embedded_task(PERCO_TINY, PercoWeights(), parts["autoencoder"]),
        crops=PercoCrops(256),
        crop=256,
        batch=16,
        schedule=Schedule(steps=4_800, rate=1e-3, cool_down=2_500, betas=(0.9, 0.99)),
        shape=asdict(replace(PERCO_TINY, modelled=True)),
        network=perco_fitted,
        parts=("autoencoder",),
    ),
    # On Stable Diffusion, for GPUs, with photographs as in the paper (LSDIR and Flickr2W); its parts are published
    # folders. First symbols and coarse pictures from 1.6 times the bits down, then the denoiser.
    Recipe(
        "sprdiff-sd",
        task=lambda parts: published(
            SprdiffTask(
                FOUNDATION,
                Weights(
                    l1=2.0,
                    dists_from=100_000,
                    critic_from=110_000,
                    dists_side=256,
                    dists_count=2,
                    critic=0.05,
                ),
                SprdiffWeights(
                    targets=(0.011, 0.016, 0.022, 0.03), anneal_steps=150_000, sketch_steps=100_000
                ),
            ),
            parts,
        ),
        crops=PlainCrops(512),
        crop=512,
        batch=4,
        schedule=Schedule(
            steps=250_000, rate=1e-4, critic_rate=1e-4, warm_up=5_000, cool_down=50_000, betas=(0.9, 0.999)
        ),
        shape=asdict(FOUNDATION),
        network=frozen,
        parts=("unet", "vae", "dinov2"),
    ),
    # GC at the width of the paper, for GPUs; its critic sees labels, GC(D+).
    Recipe(
        "gan-paper",
        task=lambda _: GanTask(_PAPER, Weights(), GanWeights(sees_labels=True)),
        crops=PlainCrops(256),
        crop=256,
        batch=8,
        schedule=Schedule(steps=280_000, rate=2e-4, cool_down=40_000, critic_rate=2e-4, betas=(0.5, 0.99)),
        shape=asdict(_PAPER),
        network=fitted,
    ),
    *(_perco_sd(rate) for rate in PERCO_RATES),
)


def find_recipe(name: str) -> Recipe:
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise ValueError(f"recipe {name!r}, this program knows: {', '.join(recipe.name for recipe in RECIPES)}")


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
