"""What trainings are set to, one table."""

from dataclasses import asdict, replace
from functools import partial

from archiver.codecs.autoencoder import SHAPE as AUTOENCODER
from archiver.codecs.gan_networks import Shape as GanShape
from archiver.codecs.layered_shape import CELL, Shape
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
from archiver.training.perceptual import Weights
from archiver.training.perco import TINY as PERCO_TINY
from archiver.training.perco import PercoCrops, PercoWeights, embedded_task
from archiver.training.perco_fit import fitted as perco_fitted
from archiver.training.perco_sd import PARTS as PERCO_SD_PARTS
from archiver.training.perco_sd import foundation_task, shape_of_rate, weights_of_rate
from archiver.training.recipe import Recipe
from archiver.training.run import Schedule
from archiver.training.sprdiff import SprdiffTask, SprdiffWeights, embedded_eyes, published
from archiver.training.sprdiff_fit import fitted as frozen
from archiver.training.stream import PlainCrops


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
        shape=asdict(replace(_SIDED, style=StyleFit.style, style_cells=StyleFit.cells)),
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
