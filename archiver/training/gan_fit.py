"""After a training of `gan`: coding tables, fitted to what its own photographs become."""

import numpy as np
import torch
from numpy.typing import NDArray

from archiver.codecs.gan import padded
from archiver.codecs.gan_labels import clusters
from archiver.codecs.gan_networks import CELL, CONTEXT, Gan
from archiver.codecs.label_maps import fit_label_tables
from archiver.codecs.symbols import LEVELS, fit_tables
from archiver.training.gan import Trained, boxed
from archiver.training.photos import read_photo
from archiver.training.run import Run
from manifests.storage import connect
from pipelines.codec import Pixels


def fitted(run: Run, photos: int = 400) -> Gan:
    """The averaged network with coding tables that suit its own symbols of photographs of the run's training."""
    averaged = run.averaged()
    assert isinstance(averaged, Trained)
    gan = averaged.network
    store = connect(run.feed.source)
    step = max(1, len(run.feed.photos) // photos)
    planes, maps = [], []
    for photo in run.feed.photos[::step]:
        pixels_hwc = read_photo(store, photo)
        if pixels_hwc is not None:
            symbols_chw, labels_hw = seen(gan, pixels_hwc, run.device)
            planes.append(symbols_chw)
            maps.append(labels_hw)
    tables = fit_tables(planes, CONTEXT)
    random = torch.Generator().manual_seed(0)
    drawn = [labels_hw * boxed(labels_hw.shape[0], labels_hw.shape[1], random).numpy() for labels_hw in maps]
    label_tables = fit_label_tables([labels_hw.astype(np.uint8) for labels_hw in drawn], gan.shape.labels + 1)
    for name, values in (
        ("neighbours", tables.neighbours),
        ("tables", tables.counts),
        ("ranks", label_tables.ranks),
        ("labels", label_tables.labels),
    ):
        gan.get_buffer(name).copy_(torch.from_numpy(values))
    return gan


@torch.inference_mode()
def seen(gan: Gan, pixels_hwc: Pixels, device: torch.device) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All symbols of a photograph (C, h, w), and the labels of its cells (h, w)."""
    pixels = torch.from_numpy(padded(pixels_hwc)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    symbols = gan.encode(pixels)[0].round().clamp(-(LEVELS // 2), LEVELS // 2) + LEVELS // 2
    labels = clusters(pixels, gan.get_buffer("palette"), CELL)[0]
    return symbols.byte().cpu().numpy(), labels.byte().cpu().numpy()
