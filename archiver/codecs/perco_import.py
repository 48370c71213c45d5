"""A public PerCo (SD) checkpoint and a copy of Stable Diffusion 2.1 -> three weights files of the `perco` codec.

What is published (github.com/Nikolai10/PerCo, Apache-2.0; arXiv 2409.20255): for each of the rates 0.0019, 0.0313 and
0.1250 a folder of a diffusers pipeline, `hyper_enc/ unet/ vae/ text_encoder/ tokenizer/ scheduler/`; the training
script's own checkpoints hold the first two of these. Either is read, the rest then from the base: a folder in the same
layout, or the id of one on the Hugging Face hub.

    hyper_enc/  backbone.*                          -> rates.0.hyper.layers.*
                quantizer.project_in, .project_out  -> rates.0.vq.inward, .outward
                quantizer._codebook.embed           -> rates.0.vq.codebook      (1, K, D) -> (K, D)
                quantizer._codebook.cluster_size    -> rates.0.vq.seen
                quantizer._codebook.embed_avg       -> rates.0.vq.sums
    unet/       conv_in_extended.*                  -> unet.conv_in.*           4 + 320 channels
                conv_in.*                           is Stable Diffusion's own, frozen and unused: left out
                all else                            -> unet.*

These become a weights file with the metadata `shape` (perco_networks.Shape); autoencoder and text encoder become files
as stable_diffusion.py tells, the same ones for every rate. Tensors keep their type, numbers are not changed. Files are
named by their sha256, and written when all has been checked; each is held in memory once (the UNet's: 3.5 GB).
"""

import inspect
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from archiver.codecs.perco_networks import Perco, RateShape, Shape
from archiver.codecs.perco_spaces import SD_SCALE
from archiver.codecs.published import Part, fit, open_part, read_json
from archiver.codecs.published_tokenizer import read_tokenizer
from archiver.codecs.stable_diffusion import (
    AUTOENCODER,
    PREFIX,
    TEXT,
    TEXT_ARGUMENTS,
    TOKENIZER,
    make_text_model,
)
from pipelines.weights import sha256_of_file

GRID = 64  # cells of the latent a side, of the 512 x 512 pixels that rates are named by
# Bits a pixel -> cells of the hyper-latent a side, codes. (The 8196 of 0.0507 is the public code's own number.)
RATES: dict[str, RateShape] = {
    "0.0019": RateShape(GRID // 8, 256),
    "0.0024": RateShape(GRID // 8, 1024),
    "0.0098": RateShape(GRID // 16, 1024),
    "0.0313": RateShape(GRID // 32, 256),
    "0.0507": RateShape(GRID // 32, 8196),
    "0.0937": RateShape(GRID // 64, 64),
    "0.1250": RateShape(GRID // 64, 256),
}
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # diffusers, early 2023
_CODEBOOK = "quantizer._codebook.embed"
_UNUSED = {"conv_in.weight", "conv_in.bias", "quantizer._codebook.initted"}
_TEXT_SPARE = {f"{PREFIX}embeddings.position_ids", "embeddings.position_ids"}  # 0, 1, 2, …
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Written:
    """A weights file, ready to be written: metadata, tensors by our names, and where they are read."""

    metadata: Mapping[str, str]
    part_of: Mapping[str, tuple[Part, str]]  # our name -> part, its name for it
    shapes: Mapping[str, tuple[int, ...]]
    more: Mapping[str, Tensor]


def import_perco(checkpoint: Path, base: str | None, rate: str, out: Path) -> list[Path]:
    """The codec's own file, the autoencoder's and the text encoder's, in the order of a spec's weights.

    Without `base` the checkpoint has to be a whole pipeline. ValueError or OSError, in one line, and nothing is
    written, where something is missing or does not fit.
    """
    check_rate(rate)
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint}: expected a folder with hyper_enc/ and unet/")
    rest = base_folder(checkpoint, base)
    hyper, unet = open_part(checkpoint / "hyper_enc"), open_part(checkpoint / "unet")
    text = open_part(rest / "text_encoder")
    files = (
        _perco_file(hyper, unet, rate),
        _autoencoder_file(open_part(rest / "vae")),
        _text_file(text, rest / "tokenizer"),
    )
    read, given = unet.config.get("cross_attention_dim"), text.config.get("hidden_size")
    if read != given:
        raise ValueError(
            f"{unet.folder} reads text of {read} numbers a token, {text.folder} gives {given}: another base?"
        )
    _check_schedule(rest / "scheduler" / "scheduler_config.json")
    out.mkdir(parents=True, exist_ok=True)
    return [_write(file, out) for file in files]


def check_rate(rate: str) -> None:
    if rate not in RATES:
        raise ValueError(f"rate {rate!r}, expected one of {', '.join(RATES)}")


def base_folder(checkpoint: Path, base: str | None) -> Path:
    """Where Stable Diffusion lies: a folder, or what the hub gives (as safetensors) for an id like "owner/name"."""
    if base is None:
        if not (checkpoint / "vae").is_dir():
            raise ValueError(f"{checkpoint} has no vae/: expected --base, a copy of Stable Diffusion 2.1")
        return checkpoint
    if Path(base).is_dir():
        return Path(base)
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{base}: expected a folder, or an id of the Hugging Face hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                base,
                allow_patterns=["vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*"],
                ignore_patterns=["*.bin", "*.msgpack", "*.onnx*", "*.fp16.*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"the hub does not give {base}, which is no folder here: {told[:200]}") from error


def public_name(ours: str) -> tuple[str, str]:
    """Our name of a tensor -> folder and name in the public checkpoint.

    Example: "rates.0.hyper.layers.8.trunk.0.layers.2.bias" -> ("hyper_enc", "backbone.8.conv_a.0.conv.2.bias")
    """
    for pattern, (folder, theirs) in _NAMES.items():
        if re.match(pattern, ours):
            return folder, re.sub(pattern, theirs, ours)
    raise AssertionError(ours)


_NAMES = {
    r"rates\.0\.hyper\.layers\.(\d+)\.trunk\.(\d)\.layers\.": ("hyper_enc", r"backbone.\1.conv_a.\2.conv."),
    r"rates\.0\.hyper\.layers\.(\d+)\.gate\.(\d)\.layers\.": ("hyper_enc", r"backbone.\1.conv_b.\2.conv."),
    r"rates\.0\.hyper\.layers\.(\d+)\.gate\.": ("hyper_enc", r"backbone.\1.conv_b."),
    r"rates\.0\.hyper\.layers\.": ("hyper_enc", "backbone."),
    r"rates\.0\.vq\.inward\.": ("hyper_enc", "quantizer.project_in."),
    r"rates\.0\.vq\.outward\.": ("hyper_enc", "quantizer.project_out."),
    r"rates\.0\.vq\.codebook$": ("hyper_enc", _CODEBOOK),
    r"rates\.0\.vq\.seen$": ("hyper_enc", "quantizer._codebook.cluster_size"),
    r"rates\.0\.vq\.sums$": ("hyper_enc", "quantizer._codebook.embed_avg"),
    r"unet\.conv_in\.": ("unet", "conv_in_extended."),
    r"unet\.": ("unet", ""),
}


def _perco_file(hyper: Part, unet: Part, rate: str) -> Written:
    shape = _shape(hyper, unet, rate)
    shapes = _sizes(lambda: Perco(shape))
    parts = {"hyper_enc": hyper, "unet": unet}
    names = {ours: public_name(ours) for ours in shapes}
    for folder, part in parts.items():
        mine = {ours: theirs for ours, (place, theirs) in names.items() if place == folder}
        fit(part, mine, shapes, _UNUSED)
    lengths = hyper.read(_CODEBOOK).float().norm(dim=-1)
    if not bool(((lengths - 1).abs() < 1e-3).all()):
        raise ValueError(
            f"{hyper.folder}: codes of lengths {float(lengths.min()):.3f} to {float(lengths.max()):.3f}, expected 1"
        )
    part_of = {ours: (parts[folder], theirs) for ours, (folder, theirs) in names.items()}
    return Written({"shape": json.dumps(asdict(shape), sort_keys=True)}, part_of, shapes, {})


def _shape(hyper: Part, unet: Part, rate: str) -> Shape:
    """What a checkpoint's own configurations say, if that is the rate."""
    told = {
        name: hyper.config.get(name) for name in ("in_channels", "N", "M", "codebook_dim", "cfg_ss", "cfg_cs")
    }
    numbers = {name: value for name, value in told.items() if type(value) is int}
    if missing := sorted(set(told) - set(numbers)):
        raise ValueError(f"{hyper.folder}/config.json has no number {missing[0]!r}")
    wanted = RATES[rate]
    if (numbers["cfg_ss"], numbers["cfg_cs"]) != (GRID // wanted.shrink, wanted.codes):
        found = [
            name
            for name, it in RATES.items()
            if (GRID // it.shrink, it.codes) == (numbers["cfg_ss"], numbers["cfg_cs"])
        ]
        raise ValueError(
            f"{hyper.folder} has {numbers['cfg_ss']} x {numbers['cfg_ss']} indices of {numbers['cfg_cs']} codes"
            f"{' (rate ' + found[0] + ')' if found else ''}, rate {rate} has "
            f"{GRID // wanted.shrink} x {GRID // wanted.shrink} of {wanted.codes}"
        )
    latent = numbers["in_channels"]
    from diffusers import UNet2DConditionModel

    config = _arguments(unet, UNet2DConditionModel)
    if config.get("in_channels", 4) != latent or config.get("out_channels", 4) != latent:
        raise ValueError(f"{unet.folder} is no UNet from {latent} to {latent} channels")
    config |= {"in_channels": latent + numbers["M"], "out_channels": latent}
    return Shape((wanted,), config, latent, numbers["N"], numbers["M"], numbers["codebook_dim"])


def _autoencoder_file(vae: Part) -> Written:
    from diffusers import AutoencoderKL

    config = _arguments(vae, AutoencoderKL)
    if config.get("scaling_factor", SD_SCALE) != SD_SCALE:
        raise ValueError(f"{vae.folder}: scaling_factor {config['scaling_factor']!r}, expected {SD_SCALE}")
    shapes = _sizes(lambda: AutoencoderKL(**config))  # type: ignore[no-untyped-call]
    names = {ours: ours for ours in shapes}
    if any(".query." in theirs for theirs in vae.shapes):
        for old, new in _RENAMED.items():
            names = {ours: theirs.replace(f".{new}.", f".{old}.") for ours, theirs in names.items()}
    fit(vae, names, shapes, set())
    part_of = {ours: (vae, theirs) for ours, theirs in names.items()}
    return Written({AUTOENCODER: json.dumps(config, sort_keys=True)}, part_of, shapes, {})


def _text_file(text: Part, tokenizer: Path) -> Written:
    missing = [name for name in TEXT_ARGUMENTS if name not in text.config]
    if missing:
        raise ValueError(f"{text.folder}/config.json has no {missing[0]!r}")
    config = {name: text.config[name] for name in TEXT_ARGUMENTS}
    found = _sizes(lambda: make_text_model(config, 0, 1))
    shapes = {name.removeprefix(PREFIX): shape for name, shape in found.items()}
    prefix = PREFIX if any(name.startswith(PREFIX) for name in text.shapes) else ""
    names = {ours: prefix + ours for ours in shapes}
    fit(text, names, shapes, _TEXT_SPARE)
    part_of = {ours: (text, theirs) for ours, theirs in names.items()}
    content = read_tokenizer(tokenizer, shapes["embeddings.token_embedding.weight"][0])
    return Written({TEXT: json.dumps(config, sort_keys=True)}, part_of, shapes, {TOKENIZER: content})


def _check_schedule(file: Path) -> None:
    """The codec knows Stable Diffusion's noise levels; ValueError for a base with others."""
    found = read_json(file)
    for name, value in _SCHEDULE.items():
        if found.get(name) != value:
            raise ValueError(f"{file}: {name} {found.get(name)!r}, expected {value!r}")


def _arguments(part: Part, network: type) -> dict[str, object]:
    """Those that the configuration gives to a class of diffusers; ValueError for one that it does not know."""
    known = inspect.signature(network).parameters
    own = {name: value for name, value in part.config.items() if not name.startswith("_")}
    unknown = sorted(name for name, value in own.items() if name not in known and value not in (None, False))
    if unknown:
        raise ValueError(
            f"{part.folder}/config.json has {unknown[0]!r}, which {network.__name__} does not know"
        )
    return {name: value for name, value in own.items() if name in known}


def _sizes(make: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, of which none is made."""
    with torch.device("meta"):
        network = make()
    assert isinstance(network, nn.Module)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _write(file: Written, out: Path) -> Path:
    tensors = {
        ours: part.read(theirs).reshape(file.shapes[ours]).contiguous()
        for ours, (part, theirs) in file.part_of.items()
    }
    unfinished = out / f".{os.getpid()}-{secrets.token_hex(4)}.unfinished"
    try:
        save_file(tensors | dict(file.more), unfinished, dict(file.metadata))
        written = out / f"{sha256_of_file(unfinished)}.safetensors"
        os.replace(unfinished, written)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return written
