"""Pictures -> captions by an image-text model of transformers, from a folder or a hub: BLIP, BLIP-2 and newer ones.

Greedy decoding, so that a picture gets the same caption again on the same machine. A model that chats is asked
for one short sentence. Nothing of the model's own code is run (`trust_remote_code` is off).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.codec import Pixels

if TYPE_CHECKING:
    from transformers import BatchFeature, PretrainedConfig

QUESTION = "Describe the picture in one short sentence."
LONGEST_LOOP = 8  # words that may make up a phrase which a model repeats


def check_model(name: str) -> None:
    """OSError or ValueError where there is no image-text model of that name; its weights are not loaded."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if name.startswith(("/", ".")) and not Path(name).is_dir():
        raise ValueError(f"captioner {name}: expected a folder, or a hub id such as OWNER/NAME")
    found = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    if found not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(f"captioner {name} is a {found!r} model, expected one from images to text")


class _Model(Protocol):
    """What is asked of transformers' models."""

    device: torch.device
    dtype: torch.dtype
    config: "PretrainedConfig"

    def generate(self, **inputs: object) -> Tensor: ...


class _Processor(Protocol):
    """What is asked of transformers' processors."""

    chat_template: str | None

    def __call__(self, **inputs: object) -> "BatchFeature": ...

    def apply_chat_template(self, conversation: object, add_generation_prompt: bool) -> str: ...

    def batch_decode(self, ids: Tensor, skip_special_tokens: bool) -> list[str]: ...


def load_model(name: str, tokens: int, batch: int, device: str) -> "ModelCaptioner":
    """OSError where it cannot be loaded; bfloat16 on a GPU, else float32."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading, in a worker
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)  # type: ignore[no-untyped-call]
        model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=False, dtype=dtype)
    except ValueError as error:  # the run is to end, not to try image after image
        raise OSError(f"captioner {name}: {error}") from error
    cast(nn.Module, model).to(device).eval()
    return ModelCaptioner(cast(_Model, model), cast(_Processor, processor), tokens, batch)


class ModelCaptioner:
    """A `Captioner` with a loaded model."""

    def __init__(self, model: _Model, processor: _Processor, tokens: int, batch: int) -> None:
        self._model, self._processor, self._tokens = model, processor, tokens
        self._prompt = _prompt(processor)
        self.batch = batch

    def captions(self, pictures: Sequence[Pixels]) -> list[str]:
        images = [Image.fromarray(pixels_hwc) for pixels_hwc in pictures]
        inputs = self._inputs(images).to(self._model.device, self._model.dtype)
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=self._tokens, do_sample=False, num_beams=1)
        if self._prompt is not None and not self._model.config.is_encoder_decoder:
            ids = ids[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [cut_repeats(" ".join(text.split())) for text in texts]

    def _inputs(self, images: list[Image.Image]) -> "BatchFeature":
        if self._prompt is None:
            return self._processor(images=images, return_tensors="pt")
        prompts = [self._prompt] * len(images)
        return self._processor(
            images=[[image] for image in images],
            text=prompts,
            padding=True,
            padding_side="left",  # answers begin where all prompts end
            return_tensors="pt",
        )


def _prompt(processor: _Processor) -> str | None:
    """What a model that chats is asked, in its own template; None for one that captions without being asked."""
    if processor.chat_template is None:
        return None
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def cut_repeats(caption: str) -> str:
    """The caption, with a phrase that a model has gone on repeating said once.

    One word counts from the third time, two and more from the second: "very very small" stays.
    Example: "a cat and a dog and a dog and a dog and a" -> "a cat and a dog"
    """
    words = caption.split()
    place = 0
    while place < len(words):
        for length in range(1, LONGEST_LOOP + 1):
            end = place + length
            while words[end : end + length] == words[place : place + length]:
                end += length
            if end - place > (2 * length if length == 1 else length):
                rest = words[end:]
                if len(rest) < length and rest == words[place : place + len(rest)]:
                    rest = []  # the token limit came in the middle of another time
                words = words[: place + length] + rest
                break
        place += 1
    return " ".join(words)
