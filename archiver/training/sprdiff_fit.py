"""A finished training of `sprdiff` -> the networks that the codec loads, their entropy model in whole numbers."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from archiver.codecs.latent_model import whole
from archiver.codecs.sprdiff import padded, seen_by
from archiver.codecs.sprdiff_networks import Sprdiff
from archiver.codecs.sprdiff_shape import BRANCHES
from archiver.training.context_fit import Plane, fit_context
from archiver.training.photos import read_photo
from archiver.training.run import Run
from archiver.training.sprdiff import SprdiffTask, Trained
from manifests.storage import connect

FIT_PHOTOS = 160


def fitted(run: Run) -> Sprdiff:
    """The averaged network with an entropy model that suits its own symbols of whole photographs, in whole numbers."""
    averaged, task = run.averaged(), run.task
    assert isinstance(averaged, Trained)
    assert isinstance(task, SprdiffTask)
    network, device = averaged.network, run.device
    task.place(device)  # a run that had ended before has prepared nothing
    store = connect(run.feed.source)
    step = max(1, len(run.feed.photos) // FIT_PHOTOS)
    planes: list[Plane] = []
    for photo in run.feed.photos[::step]:
        pixels_hwc = read_photo(store, photo)
        if pixels_hwc is not None:
            whole_hwc = padded(pixels_hwc)
            features = seen_by(network, task.eyes(network), whole_hwc, device)
            planes += _all_rates(network, features)
    context = fit_context(copy.deepcopy(averaged.context).to(device), planes, device)
    network.entropy.freeze(context)
    return network


@torch.inference_mode()
def _all_rates(network: Sprdiff, features: Sequence[Tensor]) -> list[Plane]:
    found = []
    for rate in range(network.shape.rates):
        rates = torch.tensor([rate], device=features[0].device)
        there = torch.ones(1, len(BRANCHES), dtype=torch.bool, device=features[0].device)
        symbols = whole(network.analysed(features, rates, there))[0]
        found.append((symbols.round().cpu().numpy().astype(np.int8), rate))
    return found
