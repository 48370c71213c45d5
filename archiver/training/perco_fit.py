"""After a training of `perco`: models of the indices, fitted to what its own photographs become."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray

from archiver.codecs.perco_indices import fit_model, load_indices
from archiver.codecs.perco_networks import Perco
from archiver.codecs.perco_spaces import Space
from archiver.training.perco import PercoTask, Trained
from archiver.training.photos import read_photo
from archiver.training.run import Run
from archiver.training.stream import Feed
from manifests.storage import connect
from pipelines.codec import Pixels


def fitted(run: Run, photos: int = 2000, steps: int = 3000) -> Perco:
    """The averaged networks, with models of the indices that suit their own of photographs of the run's training.

    Of the photographs that are never trained on, what the models save is written beside the checkpoint.
    """
    averaged = run.averaged()
    assert isinstance(averaged, Trained)
    assert isinstance(run.task, PercoTask)
    run.task.place(run.device)  # a run that had ended before has prepared nothing
    network = Perco(replace(averaged.network.shape, modelled=True)).to(run.device).eval()
    network.load_state_dict(averaged.network.state_dict(), strict=False)
    found = []
    for number, rate in enumerate(network.shape.rates):
        seen, held_out = (
            all_indices(network, number, run.task.space, feed, photos) for feed in (run.feed, run.held_out)
        )
        model = network.rate(number).indices
        assert model is not None
        model.load_state_dict(fit_model(seen, rate.codes, steps).state_dict())
        coder, count = load_indices(model), sum(one.size for one in held_out)
        bits = sum(coder.bits(one) for one in held_out)
        found.append({**asdict(rate), "uniform": math.log2(rate.codes), "modelled": bits / count})
    (run.out / "indices.json").write_text(json.dumps(found, indent=1) + "\n")
    return network


def all_indices(
    network: Perco, number: int, space: Space, feed: Feed, photos: int
) -> list[NDArray[np.int64]]:
    """The indices, each (y, x), of a feed's photographs that are not smaller than a cell of any rate."""
    store, cell = connect(feed.source), space.cell * max(rate.shrink for rate in network.shape.rates)
    step = max(1, len(feed.photos) // photos)
    read = (read_photo(store, photo) for photo in feed.photos[::step])
    return [
        indices_of(network, number, space, pixels_hwc)
        for pixels_hwc in read
        if pixels_hwc is not None and min(pixels_hwc.shape[:2]) >= cell
    ]


@torch.inference_mode()
def indices_of(network: Perco, number: int, space: Space, pixels_hwc: Pixels) -> NDArray[np.int64]:
    """A photograph's indices at a rate, (y, x); what is no whole cell below and to the right is left out."""
    rate = network.rate(number)
    side = space.cell * network.shape.rates[number].shrink
    y, x = (length // side for length in pixels_hwc.shape[:2])
    latents = space.latents_of(np.ascontiguousarray(pixels_hwc[: y * side, : x * side]))
    indices: NDArray[np.int64] = rate.vq.indices(rate.hyper(latents))[0].cpu().numpy()
    return indices
