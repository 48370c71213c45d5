"""Tiny detectors and segmenters with random weights, as folders that `from_pretrained` reads."""

from pathlib import Path

import torch
from torch import nn
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)

CLASSES = {0: "person", 1: "traffic light", 2: "dog"}
NUMBERS = {name: number for number, name in CLASSES.items()}


def tiny_yolos(folder: Path) -> str:
    """A YOLOS of 8 boxes a picture, whose classes and boxes depend on the picture."""
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=8,
        id2label=CLASSES,
        label2id=NUMBERS,
    )
    model = YolosForObjectDetection(config)
    _draw(model, 0.4, seed=2)
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 192}).save_pretrained(folder)
    return str(folder)


def tiny_segformer(folder: Path) -> str:
    """A SegFormer of three classes that sees 64 x 64 pixels."""
    config = SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=8,
        id2label=CLASSES,
        label2id=NUMBERS,
    )
    model = SegformerForSemanticSegmentation(config)
    _draw(model, 0.5, seed=1)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def _draw(model: nn.Module, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, spread, generator=generator)
