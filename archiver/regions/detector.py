"""Pictures -> labels that keep the boxes of objects, by a detector of transformers: DETR, YOLOS and others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from archiver.regions import Wanted
from archiver.regions.models import Model, Processor, load_parts, seen, stout
from pipelines.codec import Pixels
from pipelines.regions import Box, Labels, labels_of


def load_detector(wanted: Wanted, device: str) -> "Detector":
    """OSError where it cannot be loaded."""
    model, processor, kept = load_parts("AutoModelForObjectDetection", wanted, device)
    return Detector(model, processor, frozenset(kept), wanted.score)


@dataclass(frozen=True)
class Detector:
    """A `Finder`: boxes of the kept classes with at least that score are kept."""

    model: Model
    processor: Processor
    kept: frozenset[int]
    score: float
    batch: int = 1

    def labels(self, pictures: Sequence[Pixels]) -> list[Labels | None]:
        return [self._labels(pixels_hwc) for pixels_hwc in pictures]

    def _labels(self, pixels_hwc: Pixels) -> Labels | None:
        height, width = pixels_hwc.shape[:2]
        boxes = [box for box in self._boxes(stout(pixels_hwc)) if box[0] < width and box[1] < height]
        return labels_of(boxes, height, width) if boxes else None

    def _boxes(self, pixels_hwc: Pixels) -> list[Box]:
        """All pixels that they touch."""
        outputs = seen(self.model, self.processor, pixels_hwc)
        (found,) = self.processor.post_process_object_detection(
            outputs, threshold=self.score, target_sizes=[(pixels_hwc.shape[0], pixels_hwc.shape[1])]
        )
        boxes = []
        for number, (left, top, right, bottom) in zip(
            found["labels"].tolist(), found["boxes"].tolist(), strict=True
        ):
            if number in self.kept and right > max(0, left) and bottom > max(0, top):
                first = max(0, math.floor(left)), max(0, math.floor(top))
                boxes.append((*first, math.ceil(right), math.ceil(bottom)))
        return boxes
