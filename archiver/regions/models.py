"""What finders have in common: models of transformers, from a folder or a hub, and their names for things.

Nothing of a model's own code is run (`trust_remote_code` is off). Pictures go through a model one by one: so none
is padded to the size of another, and a picture gets the same labels in any batch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from archiver.regions import DETECTOR, Wanted
from pipelines.codec import Pixels

if TYPE_CHECKING:
    from transformers import BatchFeature

LEAST_SIDE, LEAST_SHARE = 64, 8  # no side of what a model sees is below 64 pixels, or an eighth of the other


class Config(Protocol):
    """What is asked of transformers' configurations."""

    id2label: dict[int, str]
    model_type: str


class Outputs(Protocol):
    """What is asked of a model's outputs; boxes are the processor's business."""

    logits: Tensor  # a segmenter's: (B, classes, h, w)


class Processor(Protocol):
    """What is asked of transformers' image processors."""

    def __call__(self, **inputs: object) -> "BatchFeature": ...

    def post_process_object_detection(
        self, outputs: Outputs, threshold: float, target_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]: ...


class Model(Protocol):
    """What is asked of transformers' models."""

    config: Config
    device: torch.device

    def __call__(self, **inputs: object) -> Outputs: ...


def check_model(wanted: Wanted) -> None:
    """OSError or ValueError where there is no model of that kind that knows the classes; weights are not loaded."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    name = wanted.name
    if name.startswith(("/", ".")) and not Path(name).is_dir():
        raise ValueError(f"{wanted.kind} {name}: expected a folder, or a hub id such as OWNER/NAME")
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    known, does = (
        (modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES, "finds objects")
        if wanted.kind == DETECTOR
        else (modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, "names each pixel's class")
    )
    if config.model_type not in known:
        raise ValueError(f"{wanted.kind} {name} is a {config.model_type!r} model, expected one that {does}")
    class_ids(config, wanted)


def class_ids(config: Config, wanted: Wanted) -> list[int]:
    """Of the classes that are kept, in the model's numbers; ValueError for one that it does not know."""
    names = {number: _plain(name) for number, name in config.id2label.items()}
    for one in wanted.classes:
        if _plain(one) not in names.values():
            told = ", ".join(sorted(set(names.values())))
            raise ValueError(f"{wanted.kind} {wanted.name}: no class {one!r}, it knows: {told}")
    asked = {_plain(one) for one in wanted.classes}
    found = sorted(number for number, name in names.items() if not asked or name in asked)
    if wanted.kind != DETECTOR and len(found) == len(names):
        raise ValueError(f"{wanted.kind} {wanted.name}: all of its classes are kept, expected some to draw")
    return found


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def load_parts(auto_model: str, wanted: Wanted, device: str) -> tuple[Model, Processor, list[int]]:
    """Model, image processor and kept classes, by transformers' class of that name; OSError where they cannot be."""
    import transformers
    from transformers import AutoImageProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading, in a worker
    try:
        processor = AutoImageProcessor.from_pretrained(wanted.name, trust_remote_code=False)  # type: ignore[no-untyped-call]
        model = getattr(transformers, auto_model).from_pretrained(
            wanted.name, trust_remote_code=False, dtype=torch.float32
        )
        kept = class_ids(model.config, wanted)
    except ValueError as error:  # the run is to end, not to try image after image
        raise OSError(f"{wanted.kind} {wanted.name}: {error}") from error
    cast(nn.Module, model).to(device).eval()
    return cast(Model, model), cast(Processor, processor), kept


def seen(model: Model, processor: Processor, pixels_hwc: Pixels, **settings: object) -> Outputs:
    """What the model says of one picture."""
    image = Image.fromarray(pixels_hwc)
    inputs = processor(images=[image], return_tensors="pt", **settings).to(model.device)
    with torch.inference_mode():
        return model(**inputs)


def stout(pixels_hwc: Pixels) -> Pixels:
    """Edges repeated to the right and below: the strides of a model would leave nothing of a line."""
    height, width = pixels_hwc.shape[:2]
    missing = [
        (0, max(0, max(LEAST_SIDE, -(-other // LEAST_SHARE)) - side))
        for side, other in ((height, width), (width, height))
    ]
    return np.pad(pixels_hwc, (*missing, (0, 0)), mode="edge")
