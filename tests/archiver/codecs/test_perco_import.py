"""Published folders into weights files: what arrives, and what is refused before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from archiver.codecs.networks import load_network
from archiver.codecs.perco_import import import_perco, public_name
from archiver.codecs.perco_networks import Perco, shape_of
from archiver.codecs.published import read_json
from archiver.codecs.stable_diffusion import load_autoencoder_kl, load_text_encoder
from tests.golden_files import sha256
from tests.tiny_perco_sd import (
    HYPER,
    MERGES,
    SCHEDULER,
    UNET,
    tensors_of,
    vocabulary,
    write_base,
    write_checkpoint,
    write_json,
)

CPU = torch.device("cpu")
HYPER_FILE = "hyper_enc/diffusion_pytorch_model.safetensors"
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/ and checkpoint/; not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    write_base(folder / "base")
    write_checkpoint(folder / "checkpoint")
    return folder


@pytest.fixture(scope="module")
def imported(published: Path) -> list[Path]:
    return import_perco(published / "checkpoint", str(published / "base"), "0.0313", published / "out")


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """The same folders, to be damaged."""
    for name in ("base", "checkpoint"):
        shutil.copytree(published / name, tmp_path / name)
    return tmp_path


def refusal(copy: Path, rate: str = "0.0313") -> str:
    """The complaint, in one line, of an import that writes nothing."""
    with pytest.raises((ValueError, OSError)) as caught:
        import_perco(copy / "checkpoint", str(copy / "base"), rate, copy / "out")
    assert not (copy / "out").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(copy), "")


def change(file: Path, changed: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    changed(tensors)
    save_file(tensors, file)


def test_files_are_named_by_what_they_hold(imported: list[Path]) -> None:
    assert len(imported) == 3
    assert all(file.stem == sha256(file.read_bytes()) for file in imported)
    assert sorted(file.name for file in imported[0].parent.iterdir()) == sorted(
        file.name for file in imported
    )


def test_every_number_arrives(published: Path, imported: list[Path]) -> None:
    perco = load_network(imported[0], lambda found: Perco(shape_of(found)), CPU)
    theirs = {
        folder: load_file(published / "checkpoint" / file)
        for folder, file in (("hyper_enc", HYPER_FILE), ("unet", UNET_FILE))
    }
    for ours, tensor in perco.state_dict().items():
        folder, name = public_name(ours)
        assert torch.equal(tensor, theirs[folder][name].reshape(tensor.shape)), ours
    vae = load_autoencoder_kl(imported[1], CPU)
    named = load_file(published / "base/vae/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, named[name]) for name, tensor in tensors_of(vae).items())
    assert vars(vae)["_internal_dict"]["scaling_factor"] == 0.18215


def test_captions_are_read_as_transformers_reads_them(published: Path, imported: list[Path]) -> None:
    from transformers import CLIPTokenizer

    text = load_text_encoder(imported[2], CPU)
    tokenizer = CLIPTokenizer.from_pretrained(published / "base/tokenizer", pad_token="!")
    captions = ["a red dog", "", "A  Red, red... dog's 7 'do!"]
    theirs = tokenizer(captions, padding="max_length", max_length=77)["input_ids"]
    assert text.filled(captions).tolist() == theirs
    words = vocabulary()
    assert theirs[0][:5] == [
        words.index(token) for token in ("<|startoftext|>", "a</w>", "red</w>", "dog</w>", "<|endoftext|>")
    ]
    assert theirs[0][5:] == [0] * 72  # filled with "!"
    embedded = text.embedded(text.filled(captions))
    assert embedded.shape == (3, 77, 16)
    assert torch.isfinite(embedded).all()
    assert not torch.equal(embedded[0, 4], embedded[1, 4])


def test_a_caption_too_long_is_refused_and_can_be_shortened(imported: list[Path]) -> None:
    text = load_text_encoder(imported[2], CPU)
    caption = "red dog " * 40
    with pytest.raises(ValueError, match=r"a caption of 80 tokens, expected up to 75: 'red dog"):
        text.filled([caption])
    shorter = text.shortened(caption)
    assert text.filled([shorter]).shape == (1, 77)
    assert caption.startswith(shorter)
    assert len(shorter.split()) == 75
    assert text.shortened("a red dog") == "a red dog"
    assert (
        text.shortened("dog " * 74 + "xyz") == ("dog " * 74).rstrip()
    )  # three tokens, of which one would be read
    assert text.shortened("x" * 100) == "x" * 75
    assert len(text.shortened("red " * 20_000).split()) == 75  # at once, not word by word


def test_importing_again_gives_the_same_files(published: Path, imported: list[Path], tmp_path: Path) -> None:
    again = import_perco(published / "checkpoint", str(published / "base"), "0.0313", tmp_path / "out")
    assert [file.name for file in again] == [file.name for file in imported]


def test_other_layouts_give_the_same_files(copy: Path, imported: list[Path]) -> None:
    """A whole pipeline without --base; .bin and several files; the autoencoder's names of early 2023."""
    pipeline = copy / "checkpoint"
    for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(copy / "base" / name, pipeline / name)
    hyper = load_file(pipeline / HYPER_FILE)
    torch.save(hyper, pipeline / "hyper_enc/diffusion_pytorch_model.bin")
    (pipeline / HYPER_FILE).unlink()

    unet = load_file(pipeline / UNET_FILE)
    (pipeline / UNET_FILE).unlink()
    parts = {"a.safetensors": sorted(unet)[::2], "b.safetensors": sorted(unet)[1::2]}
    for name, tensors in parts.items():
        save_file({tensor: unet[tensor] for tensor in tensors}, pipeline / "unet" / name)
    index = {"weight_map": {tensor: name for name, tensors in parts.items() for tensor in tensors}}
    write_json(pipeline / (UNET_FILE + ".index.json"), index)

    def old(tensors: dict[str, Tensor]) -> None:
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            for name in [name for name in tensors if f".{new}." in name]:
                tensors[name.replace(f".{new}.", f".{before}.")] = tensors.pop(name)

    change(pipeline / "vae/diffusion_pytorch_model.safetensors", old)

    (pipeline / "tokenizer/vocab.json").unlink()
    (pipeline / "tokenizer/merges.txt").unlink()
    model = {"vocab": {token: place for place, token in enumerate(vocabulary())}, "merges": MERGES}
    write_json(pipeline / "tokenizer/tokenizer.json", {"model": model})
    again = import_perco(pipeline, None, "0.0313", copy / "out")
    assert [file.name for file in again] == [file.name for file in imported]


def test_half_precision_stays_half(copy: Path, published: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].half()

    change(copy / "checkpoint" / UNET_FILE, halve)
    file = import_perco(copy / "checkpoint", str(copy / "base"), "0.0313", copy / "out")[0]
    with safe_open(file, "pt") as found:
        assert found.get_tensor("unet.conv_in.weight").dtype == torch.float16
        assert found.get_tensor("rates.0.vq.codebook").dtype == torch.float32


def test_the_wrong_rate(copy: Path) -> None:
    assert refusal(copy, "0.1250") == (
        "/checkpoint/hyper_enc has 32 x 32 indices of 256 codes (rate 0.0313), rate 0.1250 has 64 x 64 of 256"
    )
    assert refusal(copy, "0.03").startswith("rate '0.03', expected one of 0.0019, 0.0024, 0.0098, 0.0313")


def test_a_codebook_that_is_not_what_the_configuration_says(copy: Path) -> None:
    write_json(copy / "checkpoint/hyper_enc/config.json", HYPER | {"cfg_cs": 8196})
    assert refusal(copy, "0.0507") == (
        "/checkpoint/hyper_enc: quantizer._codebook.embed is of shape (1, 256, 8), expected (8196, 8)"
    )


def test_codes_that_are_no_unit_vectors(copy: Path) -> None:
    change(
        copy / "checkpoint" / HYPER_FILE,
        lambda tensors: tensors["quantizer._codebook.embed"].mul_(2),
    )
    assert refusal(copy) == "/checkpoint/hyper_enc: codes of lengths 2.000 to 2.000, expected 1"


@pytest.mark.parametrize(
    ("file", "tensor", "complaint"),
    [
        (HYPER_FILE, "backbone.0.bias", "/checkpoint/hyper_enc has no tensor backbone.0.bias"),
        (UNET_FILE, "conv_in_extended.bias", "/checkpoint/unet has no tensor conv_in_extended.bias"),
    ],
)
def test_a_missing_tensor(copy: Path, file: str, tensor: str, complaint: str) -> None:
    change(copy / "checkpoint" / file, lambda tensors: tensors.pop(tensor))
    assert refusal(copy) == complaint


def test_tensors_of_something_else(copy: Path) -> None:
    change(copy / "checkpoint" / UNET_FILE, lambda tensors: tensors.update(lora=torch.ones(1)))
    assert refusal(copy) == "/checkpoint/unet has the tensor lora, which this program does not know"


def test_a_tensor_of_the_wrong_shape(copy: Path) -> None:
    wrong = {"conv_out.bias": torch.zeros(5)}
    change(copy / "checkpoint" / UNET_FILE, lambda tensors: tensors.update(wrong))
    assert refusal(copy) == "/checkpoint/unet: conv_out.bias is of shape (5,), expected (4,)"


def test_stable_diffusion_without_hyper_latents(copy: Path) -> None:
    """The base's own UNet in place of the checkpoint's."""

    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors.pop("conv_in_extended.weight")
        tensors.pop("conv_in_extended.bias")

    change(copy / "checkpoint" / UNET_FILE, narrow)
    assert refusal(copy) == "/checkpoint/unet has no tensor conv_in_extended.bias and 1 more"


def test_a_base_of_another_kind(copy: Path) -> None:
    config = copy / "base/scheduler/scheduler_config.json"
    write_json(config, read_json(config) | {"beta_end": 0.02})
    assert refusal(copy) == "/base/scheduler/scheduler_config.json: beta_end 0.02, expected 0.012"
    write_json(config, SCHEDULER)
    vae = read_json(copy / "base/vae/config.json")
    write_json(copy / "base/vae/config.json", vae | {"scaling_factor": 0.13025})
    assert refusal(copy) == "/base/vae: scaling_factor 0.13025, expected 0.18215"
    write_json(copy / "base/vae/config.json", vae)
    write_json(copy / "checkpoint/unet/config.json", UNET | {"cross_attention_dim": 8})
    assert "attn2.to_k.weight is of shape (8, 16), expected (8, 8)" in refusal(copy)
    write_json(copy / "checkpoint/unet/config.json", UNET | {"attends_twice": True})
    assert refusal(copy) == (
        "/checkpoint/unet/config.json has 'attends_twice', which UNet2DConditionModel does not know"
    )


def test_a_tokenizer_of_another_text_encoder(copy: Path) -> None:
    write_json(copy / "base/tokenizer/vocab.json", {"a": 0, "b": 1})
    assert refusal(copy).startswith("/base/tokenizer: expected tokens 0 … ")


def test_what_is_not_there(copy: Path) -> None:
    shutil.rmtree(copy / "base/vae")
    assert "/base/vae/config.json" in refusal(copy)
    with pytest.raises(ValueError, match=r"has no vae/: expected --base, a copy of Stable Diffusion 2.1"):
        import_perco(copy / "checkpoint", None, "0.0313", copy / "out")
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder with hyper_enc/ and unet/"):
        import_perco(copy / "nowhere", None, "0.0313", copy / "out")
    with pytest.raises(FileNotFoundError, match=r"expected a folder, or an id of the Hugging Face hub"):
        import_perco(copy / "checkpoint", str(copy / "no/base"), "0.0313", copy / "out")
    with pytest.raises(
        ValueError, match=r"the hub does not give a b/c, which is no folder here: Repo id must"
    ):
        import_perco(copy / "checkpoint", "a b/c", "0.0313", copy / "out")
    (copy / "checkpoint" / HYPER_FILE).write_bytes(b"torn")
    assert "is no safetensors file" in refusal(copy)


def test_a_pickle_that_would_run_a_program_is_refused(copy: Path) -> None:
    class Program:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (copy / "ran",)

    (copy / "checkpoint" / HYPER_FILE).unlink()
    torch.save({"backbone.0.bias": Program()}, copy / "checkpoint/hyper_enc/diffusion_pytorch_model.bin")
    assert "is no file of tensors alone, and is not read" in refusal(copy)
    assert not (copy / "ran").exists()


def test_files_of_an_index_lie_beside_it(copy: Path) -> None:
    (copy / "checkpoint" / HYPER_FILE).unlink()
    index = {"weight_map": {"backbone.0.bias": "../../base/vae/diffusion_pytorch_model.safetensors"}}
    (copy / "checkpoint" / (HYPER_FILE + ".index.json")).write_text(json.dumps(index))
    assert refusal(copy).endswith("names no files beside it")
