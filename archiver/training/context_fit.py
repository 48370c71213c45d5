"""Symbols of whole photographs -> an entropy model that suits them: their borders are rarer than those of crops."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from archiver.codecs.latent_model import ContextModel, bits_of

FIT_STEPS, FIT_BATCH, FIT_SIDE = 400, 8, 12  # cells

Plane = tuple[NDArray[np.int8], int]  # symbols (C, h, w), and their rate


def fit_context(context: ContextModel, planes: Sequence[Plane], device: torch.device) -> ContextModel:
    """The model, taught by windows of the planes; changed in place.

    Planes smaller than FIT_SIDE are left out, unless all are: with windows as small it would learn of borders alone.
    """
    rng = np.random.default_rng(0)
    context.train().requires_grad_(True)
    optimiser = torch.optim.Adam(context.parameters(), 1e-3)
    planes = [plane for plane in planes if min(plane[0].shape[1:]) >= FIT_SIDE] or planes
    side = min([FIT_SIDE, *(min(symbols.shape[1:]) for symbols, _ in planes)])
    for step in range(FIT_STEPS):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / FIT_STEPS)
        windows, rates = [], []
        for _ in range(FIT_BATCH):
            symbols, rate = planes[int(rng.integers(len(planes)))]
            # Phases count from a picture's first cell: windows begin at even cells.
            top, left = (2 * int(rng.integers(0, (size - side) // 2 + 1)) for size in symbols.shape[1:])
            windows.append(symbols[:, top : top + side, left : left + side].astype(np.float32))
            rates.append(rate)
        batch = torch.from_numpy(np.stack(windows)).to(device)
        loss = bits_of(batch, *context(batch, torch.tensor(rates, device=device))).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return context.eval().requires_grad_(False)
