"""A finished training of `sprdiff` -> the networks that the codec loads, their entropy model in whole numbers."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archiver.codecs.latent_model import ContextModel, bits_of, whole
from archiver.codecs.sprdiff import padded, seen_by
from archiver.codecs.sprdiff_networks import Sprdiff
from archiver.codecs.sprdiff_shape import BRANCHES
from archiver.training.loop import Run
from archiver.training.photos import read_photo
from archiver.training.sprdiff import SprdiffTask, Trained
from manifests.storage import connect

FIT_PHOTOS, FIT_STEPS, FIT_BATCH, FIT_SIDE = 160, 400, 8, 12  # cells


def fitted(run: Run) -> Sprdiff:
    """The averaged network with an entropy model that suits its own symbols of whole photographs, in whole numbers."""
    averaged, task = run.averaged(), run.task
    assert isinstance(averaged, Trained)
    assert isinstance(task, SprdiffTask)
    network, device = averaged.network, run.device
    store = connect(run.feed.source)
    step = max(1, len(run.feed.photos) // FIT_PHOTOS)
    several: list[list[NDArray[np.int8]]] = []  # of each photograph, by rate
    for photo in run.feed.photos[::step]:
        pixels_hwc = read_photo(store, photo)
        if pixels_hwc is not None:
            whole_hwc = padded(pixels_hwc)
            features = seen_by(network, task.eyes(network), whole_hwc, device)
            several.append(_all_rates(network, features))
    context = _fit(copy.deepcopy(averaged.context).to(device), several, device)
    network.entropy.freeze(context)
    return network


@torch.inference_mode()
def _all_rates(network: Sprdiff, features: Sequence[Tensor]) -> list[NDArray[np.int8]]:
    found = []
    for rate in range(network.shape.rates):
        rates = torch.tensor([rate], device=features[0].device)
        there = torch.ones(1, len(BRANCHES), dtype=torch.bool, device=features[0].device)
        symbols = whole(network.analysed(features, rates, there))[0]
        found.append(symbols.round().cpu().numpy().astype(np.int8))
    return found


def _fit(
    context: ContextModel, several: Sequence[Sequence[NDArray[np.int8]]], device: torch.device
) -> ContextModel:
    """The entropy model, taught by windows of whole photographs, whose borders are rarer than those of crops."""
    rng = np.random.default_rng(0)
    context.train().requires_grad_(True)
    optimiser = torch.optim.Adam(context.parameters(), 1e-3)
    side = min([FIT_SIDE, *(min(photo[0].shape[1:]) for photo in several)])
    for step in range(FIT_STEPS):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / FIT_STEPS)
        windows, rates = [], []
        for _ in range(FIT_BATCH):
            photo, rate = several[int(rng.integers(len(several)))], int(rng.integers(len(several[0])))
            # Phases count from a picture's first cell: windows begin at even cells.
            top, left = (2 * int(rng.integers(0, (size - side) // 2 + 1)) for size in photo[rate].shape[1:])
            windows.append(photo[rate][:, top : top + side, left : left + side].astype(np.float32))
            rates.append(rate)
        symbols = torch.from_numpy(np.stack(windows)).to(device)
        loss = bits_of(symbols, *context(symbols, torch.tensor(rates, device=device))).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return context.eval().requires_grad_(False)
