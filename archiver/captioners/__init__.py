"""What a plan says under `captions` -> the captioner that writes them. Encode side only: decoding needs none.

A setting is `tags`, or `model N NAME`: NAME is a folder or a hub id, N the most tokens of a caption.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.captions import Captioner

TAGS, MODEL = "tags", "model"
TOKENS, MOST_TOKENS = 32, 512  # of a caption, unless the user says otherwise, and at most
BATCH = 4  # pictures that a captioner is handed at once


def model_setting(name: str, tokens: int) -> str:
    """For a folder, named by its absolute path, or a hub id. Example: "model 32 me/captions"."""
    return f"{MODEL} {tokens} {Path(name).resolve() if Path(name).is_dir() else name}"


def load_captioner(captions: str, device: str, batch: int = BATCH) -> "Captioner":
    """The captioner of a setting, on `device` ("cpu", "cuda:0"). OSError where it cannot be loaded."""
    if captions == TAGS:
        from archiver.captioners.tags import load_tagger

        return load_tagger(device, batch)
    from archiver.captioners.model import load_model

    name, tokens = _model(captions)
    return load_model(name, tokens, batch, device)


def check_captioner(captions: str) -> None:
    """OSError or ValueError where workers could not load it; on the driver, before anything is planned."""
    if captions == TAGS:
        from archiver.perception.backbones import backbone_tensors

        backbone_tensors("efficientnet_lite0")
        return
    from archiver.captioners.model import check_model

    check_model(_model(captions)[0])


def _model(captions: str) -> tuple[str, int]:
    """Inverse of `model_setting`."""
    match captions.split(" ", 2):
        case ["model", tokens, name] if name and tokens.isdecimal() and 1 <= int(tokens) <= MOST_TOKENS:
            return name, int(tokens)
        case _:
            raise OSError(f"captions {captions!r}, this program knows: {TAGS}, {MODEL} TOKENS NAME")
