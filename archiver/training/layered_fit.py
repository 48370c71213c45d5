"""After a training of `layered`: a style, and entropy models that suit what its own photographs become."""

from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from archiver.codecs.layered import NAME, VERSION, LayeredCodec
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import band
from archiver.presets import PRESETS
from archiver.training.context_fit import Plane, fit_context
from archiver.training.layered import QUALITIES, LayeredTask, Trained
from archiver.training.layered_styles import directions, slopes, with_style
from archiver.training.photos import read_photo
from archiver.training.run import Run
from archiver.training.stream import batches
from manifests.records import CodecSpec
from manifests.storage import connect

FIT_PHOTOS = 160
STYLED = 8  # of FIT_PHOTOS every so many is given a style, which takes minutes of a core at each scale


@dataclass(frozen=True)
class StyleFit:
    """How a style comes about."""

    style: int = 128  # numbers
    cells: int = 12  # to each of them
    pairs: int = 2_630  # of crops, whose slopes give the directions
    steps: int = 16  # of the descent, for the statistics of its numbers


def fitted(run: Run, style: StyleFit | None = None) -> Enhancer:
    """The averaged networks, with a style if asked for, and entropy models of whole photographs' symbols."""
    averaged = run.averaged()
    assert isinstance(averaged, Trained)
    enhancer, context = averaged.enhancer, averaged.context
    if enhancer.entropy is None or context is None:
        return enhancer
    if style:
        assert isinstance(run.task, LayeredTask)
        feed = replace(run.feed, batch=2, together=2, seed=run.feed.seed + 1)
        with closing(batches(feed, 0)) as pairs:
            found = slopes(run.task, averaged, islice(pairs, style.pairs), run.device)
        enhancer = with_style(enhancer, directions(found, style.style), style.cells)
    assert enhancer.entropy is not None
    planes, styles = _seen(run, enhancer, style.steps if style else 0)
    enhancer.entropy.freeze(fit_context(context, planes, run.device))
    if enhancer.styles is not None:
        table = enhancer.entropy.get_buffer("table").cpu().numpy().astype(np.int64)
        for scale, told in styles.items():
            enhancer.styles.fit(told, scale, table)
    return enhancer


def _seen(
    run: Run, enhancer: Enhancer, style_steps: int
) -> tuple[list[Plane], dict[int, list[NDArray[np.int8]]]]:
    """Side symbols of photographs at all scales, and some of their styles, by scale."""
    rng, store, steps = np.random.default_rng(0), connect(run.feed.source), _steps()
    planes: list[Plane] = []
    styles: dict[int, list[NDArray[np.int8]]] = {scale: [] for scale in QUALITIES}
    photos = run.feed.photos[:: max(1, len(run.feed.photos) // FIT_PHOTOS)]
    for number, photo in enumerate(photos):
        pixels_hwc = read_photo(store, photo)
        if pixels_hwc is None:
            continue
        for scale, (lowest, highest) in QUALITIES.items():
            quality = int(rng.integers(lowest, highest + 1))
            rate = band(scale, quality)
            styled = style_steps if number % STYLED == 0 else 0
            codec = LayeredCodec(
                CodecSpec(NAME, VERSION, {}),
                scale,
                quality,
                "4:2:0",
                steps.get(rate, 1.0),
                enhancer,
                None,
                run.device,
                styled,
            )
            side = codec.observed(pixels_hwc)
            planes.append((side.symbols_chw, rate))
            if styled:
                styles[scale].append(side.style)
    return planes, styles


def _steps() -> dict[int, float]:
    """How the presets round side symbols, by `band`; networks are trained with steps of 1."""
    params = [preset.spec.params for preset in PRESETS if preset.spec.name == NAME]
    return {band(int(p["scale"]), int(p["quality"])): int(p["step"]) / 100 for p in params}
