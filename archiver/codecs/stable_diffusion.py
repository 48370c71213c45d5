"""Weights files -> the parts of Stable Diffusion that codecs stand on: its autoencoder, and its text encoder.

Each part is one safetensors file, which holds all that making the part needs; `archiver weights import` writes them.

    autoencoder   tensors of diffusers' AutoencoderKL; metadata `autoencoder`: its arguments, JSON
    text encoder  tensors of transformers' CLIPTextModel, without the prefix "text_model.";
                  `tokenizer`: bytes of JSON, {"tokens": [in the order of ids], "merges": [[left, right], ...],
                  "pad": a token}; metadata `text`: the arguments of CLIPTextConfig, JSON

Tensors keep the type that they were published in; networks run in fp32.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

# Legend of suffixes: B batch, n tokens, E channels.

AUTOENCODER, TEXT = "autoencoder", "text"  # keys of metadata
TOKENIZER = "tokenizer"  # a tensor's name
PREFIX = "text_model."
# Arguments of CLIPTextConfig that its output at the last layer depends on.
TEXT_ARGUMENTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps",
)  # fmt: skip


@dataclass(frozen=True)
class TextEncoder:
    """Captions -> what Stable Diffusion's UNet sees of them."""

    model: "CLIPTextModel"
    tokenizer: "CLIPTokenizer"
    most: int  # tokens, with the ones at the beginning and the end

    def filled(self, captions: Sequence[str]) -> Tensor:
        """Captions as (B, most) ids; ValueError for one with more tokens."""
        rows = []
        for caption in captions:
            tokens = self.tokenizer(caption)["input_ids"]
            if len(tokens) > self.most:
                raise ValueError(
                    f"a caption of {len(tokens) - 2} tokens, expected up to {self.most - 2}: {caption[:60]!r}"
                )
            rows.append(tokens + [self.tokenizer.pad_token_id] * (self.most - len(tokens)))
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.most)

    def shortened(self, caption: str) -> str:
        """The caption up to the last word that is read whole; of a single long word, what is read of it."""
        while True:
            found = self.tokenizer(caption, return_offsets_mapping=True)
            if len(found["input_ids"]) <= self.most:
                return caption
            end, after = found["offset_mapping"][self.most - 2][1], found["offset_mapping"][self.most - 1][0]
            kept = caption[:end].rstrip()
            if end == after and " " in kept.strip():  # within a word
                kept = kept.rpartition(" ")[0].rstrip()
            caption = kept if len(kept) < len(caption) else caption[:-1]

    def to(self, device: torch.device) -> None:
        nn.Module.to(self.model, device)

    def embedded(self, tokens_bn: Tensor) -> Tensor:
        """Ids of `filled` -> (B, n, E), fp32."""
        out: Tensor = self.model(input_ids=tokens_bn.to(self.model.device)).last_hidden_state
        return out


def load_autoencoder_kl(file: Path, device: torch.device) -> "AutoencoderKL":
    """Frozen, in fp32; ValueError for a file of another part."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config, tensors = opened(file, AUTOENCODER)
    network: AutoencoderKL = AutoencoderKL(**config)
    _fill(network, tensors, file, device)
    return network


def load_text_encoder(file: Path, device: torch.device) -> TextEncoder:
    """Frozen, in fp32; ValueError for a file of another part."""
    from transformers import CLIPTokenizer

    config, tensors = opened(file, TEXT)
    if TOKENIZER not in tensors:
        raise ValueError(f"{file.name} holds no tokenizer")
    told = json.loads(tensors.pop(TOKENIZER).numpy().tobytes())
    tokenizer = CLIPTokenizer(
        vocab={token: place for place, token in enumerate(told["tokens"])},
        merges=[tuple(merge) for merge in told["merges"]],  # type: ignore[misc]
        pad_token=told["pad"],
    )
    model = make_text_model(config, tokenizer.bos_token_id, tokenizer.eos_token_id)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in model.state_dict()) else ""
    _fill(model, {prefix + name: tensor for name, tensor in tensors.items()}, file, device)
    return TextEncoder(model, tokenizer, int(model.config.max_position_embeddings))


def make_text_model(config: Mapping[str, object], begin: int, end: int) -> "CLIPTextModel":
    """An untrained one; the ids of the tokens around a caption have to lie in the vocabulary, and change nothing."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    return CLIPTextModel(CLIPTextConfig(**config, **ids))  # type: ignore[arg-type]


def opened(file: Path, part: str) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Arguments and tensors of a part; ValueError where the file is another's."""
    try:
        with safe_open(file, "pt") as found:
            metadata = found.metadata() or {}
            if part not in metadata:
                raise ValueError(f"{file.name} holds other weights than Stable Diffusion's {part}")
            config = json.loads(metadata[part])
            return config, {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file.name} is no safetensors file: {error}") from error


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], file: Path, device: torch.device) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{file.name} holds weights of another shape: {told[:200]}") from error
    # Not the `to` of diffusers, which warns of what does not matter here.
    nn.Module.to(network.eval().requires_grad_(False), device, torch.float32)


def tokenizer_tensor(tokens: Sequence[str], merges: Sequence[tuple[str, str]], pad: str) -> Tensor:
    """What `load_text_encoder` makes the tokenizer from."""
    content = json.dumps({"tokens": list(tokens), "merges": [list(merge) for merge in merges], "pad": pad})
    return torch.from_numpy(np.frombuffer(content.encode(), dtype=np.uint8).copy())
