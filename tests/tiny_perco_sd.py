"""Folders laid out as Stable Diffusion 2.1 and public PerCo (SD) checkpoints are, of tiny random networks."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from archiver.codecs.stable_diffusion import make_text_model

HYPER = {"in_channels": 4, "N": 8, "M": 16, "codebook_dim": 8, "cfg_ss": 32, "cfg_cs": 256}
UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": [2, 4],
    "norm_num_groups": 4,
    "use_linear_projection": True,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
MERGES = [("r", "e"), ("re", "d</w>"), ("d", "o"), ("do", "g</w>")]


def vocabulary() -> list[str]:
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    whole = [character + "</w>" for character in characters]
    return [*characters, *whole, *(a + b for a, b in MERGES), "<|startoftext|>", "<|endoftext|>"]


TEXT = {
    "vocab_size": len(vocabulary()),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "architectures": ["CLIPTextModel"],
    "eos_token_id": 2,
}


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def tensors_of(network: object) -> dict[str, Tensor]:
    assert isinstance(network, nn.Module)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def write_part(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    write_json(folder / "config.json", config)
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    save_file(dict(tensors), folder / f"{stem}.safetensors")


def write_base(folder: Path) -> Path:
    """vae/ text_encoder/ tokenizer/ scheduler/"""
    torch.manual_seed(5)
    write_part(folder / "vae", VAE, tensors_of(AutoencoderKL(**VAE)))  # type: ignore[no-untyped-call]
    text = tensors_of(make_text_model({name: TEXT[name] for name in list(TEXT)[:8]}, 0, 1))
    # The names of transformers 4, and a buffer that its versions before 4.31 saved.
    named = {f"text_model.{name}": tensor for name, tensor in text.items()}
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    write_part(folder / "text_encoder", TEXT, named)
    write_json(folder / "tokenizer/vocab.json", {token: place for place, token in enumerate(vocabulary())})
    merges = "\n".join(" ".join(merge) for merge in MERGES)
    (folder / "tokenizer/merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    write_json(
        folder / "tokenizer/tokenizer_config.json", {"pad_token": "<|endoftext|>", "model_max_length": 77}
    )
    write_json(folder / "tokenizer/special_tokens_map.json", {"pad_token": "!"})
    write_json(folder / "scheduler/scheduler_config.json", SCHEDULER)
    return folder


def write_checkpoint(folder: Path) -> Path:
    """hyper_enc/ unet/, as the public training script saves them."""
    torch.manual_seed(6)
    unet = tensors_of(UNet2DConditionModel(**UNET))  # type: ignore[no-untyped-call]
    unet["conv_in_extended.weight"] = 0.2 * torch.randn(8, 4 + 16, 3, 3)
    unet["conv_in_extended.bias"] = torch.zeros(8)
    write_part(folder / "unet", {"_class_name": "UNet2DConditionModel", **UNET}, unet)
    write_part(folder / "hyper_enc", {"_class_name": "HyperEncoder", **HYPER}, hyper_tensors())
    return folder


def hyper_tensors() -> dict[str, Tensor]:
    """Of a hyper-encoder 4 -> 8 -> 16 channels at half the latent's grid, and 256 codes; by the public names."""
    n, m, d, codes = HYPER["N"], HYPER["M"], HYPER["codebook_dim"], HYPER["cfg_cs"]
    made: dict[str, Tensor] = {}

    def convolution(name: str, inward: int, outward: int, size: int) -> None:
        made[f"{name}.weight"] = torch.randn(outward, inward, size, size) / (inward * size**2) ** 0.5
        made[f"{name}.bias"] = 0.1 * torch.randn(outward)

    def bottleneck(name: str, channels: int) -> None:
        convolution(f"{name}.0", channels, channels // 2, 1)
        convolution(f"{name}.2", channels // 2, channels // 2, 3)
        convolution(f"{name}.4", channels // 2, channels, 1)

    def attention(name: str, channels: int) -> None:
        for branch in "ab":
            for number in range(3):
                bottleneck(f"{name}.conv_{branch}.{number}.conv", channels)
        convolution(f"{name}.conv_b.3", channels, channels, 1)

    for first, inward, size in ((0, 4, 1), (4, n, 1), (9, n, 5)):
        convolution(f"backbone.{first}", inward, n, size)
        for number in range(1, 4):
            bottleneck(f"backbone.{first + number}.layers", n)
    attention("backbone.8", n)
    convolution("backbone.13", n, m, 1)
    attention("backbone.14", m)
    codebook = torch.nn.functional.normalize(torch.randn(1, codes, d), dim=-1)
    return made | {
        "quantizer.project_in.weight": torch.randn(d, m) / m**0.5,
        "quantizer.project_in.bias": 0.1 * torch.randn(d),
        "quantizer.project_out.weight": torch.randn(m, d) / d**0.5,
        "quantizer.project_out.bias": 0.1 * torch.randn(m),
        "quantizer._codebook.initted": torch.ones(1),
        "quantizer._codebook.cluster_size": torch.ones(1, codes),
        "quantizer._codebook.embed_avg": codebook.clone(),
        "quantizer._codebook.embed": codebook,
    }
