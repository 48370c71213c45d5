"""The `layered` codec's encoder finds a style: numbers for the whole picture that make what is drawn most like it.

By descent, as the content-adaptive codecs of Campos et al. (CVPRW 2019) and Yang et al. (NeurIPS 2020) refine their
latents: windows of the picture are drawn as the decoder will draw them, judged by L1, LPIPS, and DISTS of all windows
together, and the style follows the slope. DISTS compares means of features over the picture, so that few numbers move
it far. One pass of an observer could not foretell them: what to change depends on what is drawn (the model card).

Encoders alone do this. They need the features of LPIPS and DISTS, see archiver/perception/backbones.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archiver.codecs.drawing import normal
from archiver.codecs.latent_model import LARGEST
from archiver.codecs.layered_drawing import MARGIN, Given
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import CELL, style_count
from archiver.perception.backbones import Name, backbone_tensors
from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from archiver.precision import autocast
from pipelines.codec import Pixels

# Legend of suffixes: B windows, C channels; H, W pixels; h, w cells of CELL x CELL pixels.

EDGE = MARGIN * CELL  # pixels around a window that are drawn and not judged
WINDOW, MOST_WINDOWS = 16, 6  # cells a side, and how many of them are looked at, the same at each step
LEAST = 2  # cells a side: for smaller pictures the judges' features have no size
RATE, BETAS = 1.2, (0.8, 0.95)  # Adam's, in numbers of a style; the rate falls to 0
# What each counts; pixels are in [-1, 1]. With weights of training (0.08, 2.7, 5) PSNR fell by 0.23 dB, not 0.07, and
# DISTS by 0.014, not by 0.018 (six photographs at 0.03 bits a pixel, 32 numbers, four windows; 8 and 12 steps, the
# latter with 3, 2 and 8).
L1, LPIPS_WEIGHT, DISTS_WEIGHT = 3.0, 1.5, 10.0
# And, by the base's scale, what `ruled` counts: over a base at 1/4, a style that is found for features alone may draw
# lines, which LPIPS and DISTS do not mind (measured for 1/4, in the model card; 1/8 is taken to be like it).
RULED_WEIGHT = {2: 0.0, 4: 400.0, 8: 400.0}


@dataclass(frozen=True)
class Windows:
    """What the enhancer is given of each window, with its surroundings; and what it should draw there."""

    small: Tensor  # (B, 3, H / scale, W / scale) in [-1, 1]
    side: Tensor  # (B, C, h, w)
    told: Tensor  # (1, TOLD), of all of them
    noise_hw: Tensor  # (B, 1, H / 4, W / 4)
    noise_HW: Tensor  # (B, 1, H, W)
    target: Tensor  # (B, 3, H - 2 EDGE, W - 2 EDGE) in [-1, 1]


def places(h: int, w: int) -> list[tuple[int, int, int, int]]:
    """Windows of a picture of cells, spread over it: top, left, height, width."""
    height, width = min(h, WINDOW), min(w, WINDOW)
    rows, columns = (max(1, round(length / WINDOW)) for length in (h, w))
    while rows * columns > MOST_WINDOWS:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    return [
        (top, left, height, width) for top in _spread(h, height, rows) for left in _spread(w, width, columns)
    ]


def _spread(length: int, size: int, count: int) -> list[int]:
    """The first cells of so many windows, each in the middle of its part of a length."""
    middles = ((number + 0.5) * length / count for number in range(count))
    return [min(max(0, round(middle - size / 2)), length - size) for middle in middles]


def windows_of(given: Given, whole_hwc: Pixels) -> Windows:
    """Of a picture of whole cells."""
    assert given.side is not None

    def cut(x: Tensor, step: int, margin: int) -> Tensor:
        """(..., rows, columns), `step` of them to a cell -> all windows, (B, ...), with so many cells around."""
        seen = []
        for top, left, h, w in places(*(length // CELL for length in whole_hwc.shape[:2])):
            rows = slice(top * step, (top + h + 2 * margin) * step)
            seen.append(x[..., rows, left * step : (left + w + 2 * margin) * step])
        windows = torch.stack(seen)
        return windows if windows.dim() < 4 else windows.contiguous(memory_format=torch.channels_last)

    target = cut(torch.from_numpy(whole_hwc).permute(2, 0, 1), CELL, 0)
    return Windows(
        small=cut(given.small[0], CELL // given.scale, MARGIN),
        side=cut(given.side[0], 1, MARGIN),
        told=given.told,
        noise_hw=normal(cut(given.quarter, CELL // 4, MARGIN))[:, None],
        noise_HW=normal(cut(given.full, CELL, MARGIN))[:, None],
        target=target.to(given.told.device) / 127.5 - 1,
    )


class Judges:
    """How unlike windows are."""

    def __init__(self, device: torch.device) -> None:
        self.lpips = LPIPS("alexnet").eval().to(device)
        self.dists = DISTS().eval().to(device)

    def real(self, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What `apart` needs of the windows."""
        return self.lpips.taps(target), self.dists.taps(target / 2 + 0.5)

    def apart(self, made: Tensor, target: Tensor, real: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """A number; less is better."""
        lpips = self.lpips.distance(self.lpips.taps(made), real[0]).mean()
        dists = self.dists.together(self.dists.taps(made / 2 + 0.5), real[1])
        return L1 * (made - target).abs().mean() + LPIPS_WEIGHT * lpips + DISTS_WEIGHT * dists


def ruled(made: Tensor, target: Tensor) -> Tensor:
    """How the means of neighbouring rows, and of columns, differ otherwise than they should: a mean square, >= 0.

    Of (B, 3, H, W) in [-1, 1]. Lines along a window are all that shows: what goes up and down within one cancels out.
    """
    error = (made - target).mean(1)
    return error.mean(1).diff().square().mean() + error.mean(2).diff().square().mean()


def fetch_judges() -> None:
    """OSError where their features are not on this machine and cannot be had."""
    names: tuple[Name, ...] = ("alexnet", "vgg16", "dists")
    for name in names:
        backbone_tensors(name)


@lru_cache(maxsize=2)
def load_judges(device: torch.device) -> Judges:
    return Judges(device)


def find_style(enhancer: Enhancer, given: Given, whole_hwc: Pixels, steps: int) -> NDArray[np.int8]:
    """The style of a picture of whole cells after so many steps, in whole numbers; zeros where they are not better."""
    device = given.told.device
    size = style_count(enhancer.shape, *(length // CELL for length in whole_hwc.shape[:2]))
    if not size or min(whole_hwc.shape[:2]) < LEAST * CELL:
        return np.zeros(size, dtype=np.int8)
    windows, judges = windows_of(given, whole_hwc), load_judges(device)
    fast = autocast(device)

    def drawn(style: Tensor) -> Tensor:
        told = torch.cat((windows.told, style[None]), 1).expand(len(windows.small), -1)
        made: Tensor = enhancer(
            windows.small, windows.side, given.scale, told, windows.noise_hw, windows.noise_HW
        ).float()
        return made[..., EDGE:-EDGE, EDGE:-EDGE]

    def apart(made: Tensor) -> Tensor:
        lines = RULED_WEIGHT[given.scale] * ruled(made, windows.target)
        return judges.apart(made, windows.target, real) + lines

    with torch.no_grad(), fast:
        real = judges.real(windows.target)
    style = torch.zeros(size, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([style], betas=BETAS)
    first = None
    for number in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1 - number / steps)
        with torch.enable_grad(), fast:
            loss = apart(drawn(style))
        first = float(loss.detach()) if first is None else first
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad(), fast:
        whole = style.detach().round().clamp(-LARGEST, LARGEST)
        last = float(apart(drawn(whole).clamp(-1, 1)))
    if first is None or not last < first:
        return np.zeros(size, dtype=np.int8)
    return np.asarray(whole.to(torch.int8).cpu().numpy())
