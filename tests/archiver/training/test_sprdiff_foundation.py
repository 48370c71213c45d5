"""sprdiff on published networks, at tiny widths: folders as diffusers and transformers write them -> a codec."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from archiver.codecs.sprdiff import SprdiffCodec, in_tiles, load_sprdiff
from archiver.codecs.sprdiff_denoiser import Denoiser, signal_and_noise
from archiver.codecs.sprdiff_foundation import Dino, KlLatents, LowRank, published_names
from archiver.codecs.sprdiff_shape import FOUNDATION, Shape
from archiver.training import context_fit, sprdiff_fit
from archiver.training.loop import train
from archiver.training.perceptual import Weights
from archiver.training.recipe import Recipe, export, start
from archiver.training.recipes import find_recipe
from archiver.training.run import Schedule
from archiver.training.sprdiff import SprdiffTask, SprdiffWeights, published
from archiver.training.stream import PlainCrops
from manifests.records import CodecSpec
from manifests.storage import locate
from tests.codec_suite import decode_one, encode_one
from tests.golden_files import sha256
from tests.samples import photo
from tests.tiny_training import write_photographs

SHAPE = Shape(
    latent=4, stride=8, distortion=10, semantic=16, channels=8, slices=2, rates=2, context=8, width=8, deep=8, blocks=1,
    pixel=4, unet=8, unet_deep=0, levels=4, layers=1, cross=16, head=8, tokens=2, step=399, foundation=1, rank=2,
    vae=8, dino_layers=1, dino_side=4,
)  # fmt: skip
RECIPE = Recipe(
    "tiny-sd",
    task=lambda parts: published(
        SprdiffTask(
            SHAPE,
            Weights(dists_from=2, critic_from=3, dists_side=32),
            SprdiffWeights(targets=(0.02, 0.04), sketch_steps=2, anneal_steps=3),
        ),
        parts,
    ),
    crops=PlainCrops(64),
    crop=64,
    batch=2,
    schedule=Schedule(steps=5, warm_up=2, cool_down=2, check_steps=4, save_seconds=600),
    shape=asdict(SHAPE),
    network=sprdiff_fit.fitted,
    parts=("unet", "vae", "dinov2"),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context_fit, "FIT_STEPS", 3)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Networks of random weights, with the arguments of Stable Diffusion 2.1's and DINOv2's but for their widths."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        block_out_channels=(8, 16, 32, 32),
        attention_head_dim=(1, 2, 4, 4),
        cross_attention_dim=16,
        layers_per_block=1,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(  # type: ignore[no-untyped-call]
        block_out_channels=(8, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
    )
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, patch_size=14, image_size=56
    )
    parent = tmp_path_factory.mktemp("published")
    unet.save_pretrained(parent / "unet")  # type: ignore[attr-defined]
    vae.save_pretrained(parent / "vae")  # type: ignore[attr-defined]
    Dinov2Model(config).save_pretrained(parent / "dinov2")
    return {name: parent / name for name in ("unet", "vae", "dinov2")}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_published_networks_and_photographs_become_a_codec(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    source = write_photographs(tmp_path)
    run = start(RECIPE, locate(str(source)), tmp_path / "run", torch.device("cpu"), parts=folders)
    task = run.task
    assert isinstance(task, SprdiffTask)
    network = task.generator.network
    theirs = UNet2DConditionModel.from_pretrained(  # type: ignore[no-untyped-call]
        folders["unet"]
    ).state_dict()
    for name, value in network.denoiser.unet.state_dict().items():
        if ".low." not in name and ".high." not in name:
            assert torch.equal(value, theirs[name.replace(".base.", ".")]), name
    before = tensors_of(network)
    told = list(train(run))
    assert ["lpips" in progress.terms for progress in told if progress.kind == "train"] == [False] * 2 + [
        True
    ] * 3
    assert not any("distilled" in progress.terms for progress in told)
    changed = {name for name, value in tensors_of(network).items() if not torch.equal(value, before[name])}
    for part in ("transform.", "analysis.", "reconstruction.", "guidance.", "denoiser.guide."):
        assert any(name.startswith(part) for name in changed), part
    assert any(".high." in name for name in changed)
    frozen = [name for name in changed if name.startswith(("autoencoder.", "semantic."))]
    assert frozen == []
    assert all(".low." in name or ".high." in name for name in changed if name.startswith("denoiser.unet."))

    file = export(RECIPE, run)
    weights = {sha256(file.read_bytes()): file}
    codec = load_sprdiff(CodecSpec("sprdiff", 1, {"rate": 1}, tuple(weights)), weights, "cpu")
    for height, width in ((1, 1), (70, 100)):
        encoded = encode_one(codec, photo(height, width))
        assert decode_one(codec, encoded).shape == (height, width, 3)
        assert codec.decode_coarse([encoded])[0].shape == (height, width, 3)
    _areas_join(codec)
    three = (*weights, *weights, *weights)
    with pytest.raises(ValueError, match="3 weights, expected 1 for this network"):
        load_sprdiff(CodecSpec("sprdiff", 1, {"rate": 1}, three), weights, "cpu")


def _areas_join(codec: SprdiffCodec) -> None:
    """The published encoder sees all of what it is given: areas differ, and are blended without a step."""
    height, width, busy = (
        192,
        1376,
        600,
    )  # wider than an area of the denoiser, and than a tile of our encoders
    assert decode_one(codec, encode_one(codec, photo(height, width))).shape == (height, width, 3)
    pixels = torch.full((1, 3, height, width), 0.2)
    pixels[..., :busy] = torch.rand(1, 3, height, busy, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        made = codec.latents_of(pixels), in_tiles(codec.eyes.latents.encode, pixels)
    assert made[0].shape == made[1].shape == (1, 4, height // 8, width // 8)
    # Behind the noise all is flat: the only steps are where areas or tiles meet.
    steps = [float(one[..., 80:-4].diff(dim=3).abs().max()) for one in made]
    assert steps[0] < 0.5 * steps[1]


def test_embedded_weights_are_refused_by_number(folders: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match="builds on autoencoders"):
        SprdiffTask(Shape(), Weights(), SprdiffWeights())
    with pytest.raises(ValueError, match="2 targets for 4 rates"):
        SprdiffTask(Shape(), Weights(), SprdiffWeights(targets=(0.1, 0.2)))


def test_a_part_of_another_width_is_refused(folders: Mapping[str, Path]) -> None:
    task = SprdiffTask(replace(SHAPE, cross=24), Weights(), SprdiffWeights(targets=(0.02, 0.04)))
    with pytest.raises(ValueError, match="expected"):
        published(task, folders)


def test_tensors_are_found_under_the_names_of_their_day() -> None:
    assert published_names("a.attn1.to_q.base.weight") == ("a.attn1.to_q.weight", "a.attn1.query.weight")
    assert published_names("a.attn1.to_q.low.weight") == ()
    assert published_names("layer.0.attention.o_proj.bias")[1] == "layer.0.attention.output.dense.bias"
    assert published_names("conv_in.bias") == ("conv_in.bias", "conv_in.bias")


def test_a_low_rank_update_begins_as_none() -> None:
    base = nn.Linear(6, 5)
    updated, x = LowRank(base, 2), torch.randn(3, 6)
    assert torch.equal(updated(x), base(x))


def test_the_full_size_is_that_of_the_published_networks() -> None:
    recipe = find_recipe("sprdiff-sd")
    assert recipe.shape == asdict(FOUNDATION)
    assert recipe.parts == ("unet", "vae", "dinov2")
    with torch.device("meta"):
        denoiser = Denoiser(FOUNDATION)
        vae, dino = KlLatents(FOUNDATION.vae, FOUNDATION.latent), Dino(FOUNDATION.semantic, 12, 37)
    own = {name: value.numel() for name, value in denoiser.unet.named_parameters()}
    updates = sum(size for name, size in own.items() if ".low." in name or ".high." in name)
    assert sum(own.values()) - updates == 865_910_724  # of Stable Diffusion 2.1
    assert sum(value.numel() for value in vae.parameters()) == 83_653_863
    assert sum(value.numel() for value in dino.parameters()) == 86_580_480
    assert sum(value.numel() for value in denoiser.unet.parameters() if value.requires_grad) == updates


def test_noise_is_that_of_stable_diffusions_schedule() -> None:
    signal, noise = signal_and_noise(999)
    assert signal**2 == pytest.approx(0.00466, abs=1e-5)
    assert signal**2 + noise**2 == pytest.approx(1)
