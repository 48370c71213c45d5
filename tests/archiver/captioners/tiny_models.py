"""Tiny image-text models with random weights, as folders that `from_pretrained` reads: 32 x 32 pixels, few words."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
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
ASKED = ["USER:", "ASSISTANT:", "Describe", "the", "picture", "one", "short", "sentence."]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
VOCABULARY = [*SPECIAL, *WORDS, *ASKED]
SIDE = {"height": 32, "width": 32}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES = {**SMALL, "image_size": 32, "patch_size": 16}
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tiny_blip(folder: Path) -> str:
    """Captions without being asked; its text model looks at the picture through attention."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    tokenizer = BertTokenizer(
        vocab={word: place for place, word in enumerate(vocabulary)}, additional_special_tokens=["[DEC]"]
    )
    special = {"pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3, "bos_token_id": 5}
    text = {"vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    config = BlipConfig(
        text_config={**SMALL, **special, **text, "projection_dim": 16}, vision_config=EYES, projection_dim=16
    )
    _save(BlipForConditionalGeneration(config), folder)
    images = BlipImageProcessorPil(size=SIDE)
    BlipProcessor(images, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)


def tiny_blip2(folder: Path) -> str:
    """Captions without being asked; pictures are the first words of an OPT."""
    text = {"model_type": "opt", "vocab_size": len(VOCABULARY), "hidden_size": 16, "ffn_dim": 32}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 16}
    text |= {"max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    query = {**SMALL, "vocab_size": len(VOCABULARY), "encoder_hidden_size": 16}
    config = Blip2Config(
        vision_config=EYES, qformer_config=query, text_config=text, num_query_tokens=4, image_token_index=4
    )
    _save(Blip2ForConditionalGeneration(config), folder)
    images = BlipImageProcessorPil(size=SIDE)
    Blip2Processor(images, _tokenizer(), num_query_tokens=4).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)


def tiny_llava(folder: Path) -> str:
    """Answers what it is asked."""
    text = {**SMALL, "model_type": "llama", "vocab_size": len(VOCABULARY), "max_position_embeddings": 128}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    eyes = {**EYES, "model_type": "clip_vision_model", "projection_dim": 16}
    config = LlavaConfig(vision_config=eyes, text_config=text, image_token_index=4, vision_feature_layer=-1)
    _save(LlavaForConditionalGeneration(config), folder)
    LlavaProcessor(  # type: ignore[no-untyped-call]
        CLIPImageProcessorPil(size=SIDE, crop_size=SIDE),
        _tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return str(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, **special, extra_special_tokens={"image_token": "<image>"}
    )


def _save(model: torch.nn.Module, folder: Path) -> None:
    """With weights so large that captions depend on the picture."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5, generator=generator)
    model.save_pretrained(folder)  # type: ignore[operator]
