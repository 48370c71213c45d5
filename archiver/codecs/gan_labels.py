"""Pictures -> label maps: what SC draws, cell by cell; surfaces that look alike have a label in common."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

OWN = 255  # in a picture's labels: draw it as what the codec takes it for
FEATURES = 5  # lightness, blueness, redness, contrast, fineness of a cell


def surfaces(pixels: Tensor, cell: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, FEATURES, h, w), each about 0 to 2 apart."""
    red, green, blue = pixels.float().unbind(1)
    light = (0.3 * red + 0.6 * green + 0.1 * blue)[:, None]
    mean = F.avg_pool2d(light, cell)
    spread = (F.avg_pool2d(light**2, cell) - mean**2).clamp_min(0).sqrt()
    step = (light[..., 1:] - light[..., :-1]).abs()
    fine = F.avg_pool2d(F.pad(step, (0, 1)), cell)
    blueness, redness = (F.avg_pool2d(x[:, None] - light, cell) for x in (blue, red))
    return torch.cat((mean, 2 * blueness, 2 * redness, 3 * spread, 6 * fine), 1)


def nearest(features: Tensor, palette: Tensor) -> Tensor:
    """(B, FEATURES, h, w) -> (B, h, w), the nearest of a palette (labels, FEATURES)."""
    distance = torch.cdist(features.permute(0, 2, 3, 1).flatten(1, 2), palette[None].float())
    return distance.argmin(-1).view(features.shape[0], *features.shape[2:])


def smoothed(labels_bhw: Tensor, count: int, times: int = 2) -> Tensor:
    """Each cell takes the label that most of the 3x3 cells around it have; its own counts 1.5 times."""
    for _ in range(times):
        one_hot = F.one_hot(labels_bhw, count).permute(0, 3, 1, 2).float()
        votes = F.avg_pool2d(F.pad(one_hot, (1, 1, 1, 1)), 3, 1) * 9 + 0.5 * one_hot
        labels_bhw = votes.argmax(1)
    return labels_bhw


def clusters(pixels: Tensor, palette: Tensor, cell: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> labels 1 … of the palette, (B, h, w)."""
    return 1 + smoothed(nearest(surfaces(pixels, cell), palette), palette.shape[0])


def moved(palette: Tensor, features: Tensor, share: float) -> Tensor:
    """A palette after a step of k-means on a batch: each colour goes `share` of the way to the mean of its cells."""
    flat = features.permute(0, 2, 3, 1).flatten(0, 2)
    one_hot = F.one_hot(nearest(features, palette).flatten(), palette.shape[0]).float()
    count = one_hot.sum(0)[:, None]
    mean = one_hot.T @ flat / count.clamp_min(1)
    return torch.where(count > 0, palette.lerp(mean, share), palette)


def cell_labels(labels_HW: NDArray[np.uint8], own_hw: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """Labels of pixels -> of cells: 0 (coded) where any pixel is, else what most are; OWN becomes `own_hw`'s.

    Cells beyond the edges are those of the last pixels. ValueError where the two are of pictures of other sizes.
    """
    h, w = own_hw.shape
    height, width = labels_HW.shape
    if (-(-height // cell), -(-width // cell)) != (h, w):
        raise ValueError(f"labels of {width} x {height} pixels, expected some of {w} x {h} cells of {cell}")
    whole = np.pad(labels_HW, ((0, h * cell - height), (0, w * cell - width)), mode="edge")
    cells = whole.reshape(h, cell, w, cell).swapaxes(1, 2).reshape(h, w, cell * cell)
    found = np.zeros((h, w), dtype=np.uint8)
    for y, x in zip(*np.nonzero(cells.min(2)), strict=True):
        label = np.bincount(cells[y, x]).argmax()
        found[y, x] = own_hw[y, x] if label == OWN else label
    return found
