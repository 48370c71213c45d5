"""Pictures -> labels that keep some classes of pixels, by a semantic segmentation model of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.nn import functional as F

from archiver.regions import Wanted
from archiver.regions.models import Model, Processor, load_parts, seen, stout
from pipelines.codec import Pixels
from pipelines.regions import CODED, DRAWN, Labels


def load_segmenter(wanted: Wanted, device: str) -> "Segmenter":
    """OSError where it cannot be loaded."""
    model, processor, kept = load_parts("AutoModelForSemanticSegmentation", wanted, device)
    rest = sorted(model.config.id2label.keys() - set(kept))
    return Segmenter(model, processor, kept, rest)


@dataclass(frozen=True)
class Segmenter:
    """A `Finder`: pixels of the kept classes are kept, the others drawn as what the codec takes them for."""

    model: Model
    processor: Processor
    kept: Sequence[int]
    rest: Sequence[int]
    batch: int = 1

    def labels(self, pictures: Sequence[Pixels]) -> list[Labels | None]:
        return [self._labels(pixels_hwc) for pixels_hwc in pictures]

    def _labels(self, pixels_hwc: Pixels) -> Labels | None:
        height, width = pixels_hwc.shape[:2]
        shown = stout(pixels_hwc)
        # The whole picture, also to models that were trained on its middle.
        settings = {"do_center_crop": False} if hasattr(self.processor, "do_center_crop") else {}
        logits_khw = seen(self.model, self.processor, shown, **settings).logits[0].float()
        # One plane is enlarged, not one for each class: those of a phone's picture would take 10 GB.
        lead_hw = logits_khw[self.kept].amax(0) - logits_khw[self.rest].amax(0)
        lead_HW = F.interpolate(lead_hw[None, None], size=shown.shape[:2], mode="bilinear")[0, 0]
        kept = (lead_HW[:height, :width] >= 0).cpu().numpy()
        return np.where(kept, CODED, DRAWN).astype(np.uint8) if kept.any() else None
