"""Tiny image-text models with random weights, as folders that `from_pretrained` reads."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
)

WORDS = [
    "a",
    "two",
    "red",
    "old",
    "cat",
    "dog",
    "house",
    "sea",
    "boat",
    "tree",
    "man",
    "on",
    "in",
    "of",
    "and",
    "near",
]


def tiny_blip(folder: Path) -> str:
    """A BLIP of 32 x 32 pixels and 16 words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    tokenizer = BertTokenizer(
        vocab={word: place for place, word in enumerate(vocabulary)}, additional_special_tokens=["[DEC]"]
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3, "bos_token_id": 5}
    text = {"vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    config = BlipConfig(
        text_config={**small, **special, **text, "projection_dim": 16},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    model = BlipForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5, generator=generator)
    model.save_pretrained(folder)
    image_processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    BlipProcessor(image_processor, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)
