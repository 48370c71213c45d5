import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from archiver.codecs.perco import PercoCodec, first_noise, load_perco
from archiver.presets import Preset
from manifests.records import CodecSpec, EncodedImage, Param
from pipelines.codec import Codec, Picture
from tests.codec_suite import CAPTION, CodecContract, CodecSuite, apart, decode_one, encode_one
from tests.samples import KINDS, photo
from tests.tiny_perco import PARAMS, tiny_codec, tiny_weights

COARSE: Mapping[str, Param] = {"shrink": 2, "codes": 40}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def codec(weights: Mapping[str, Path]) -> PercoCodec:
    return tiny_codec(weights)


class _Contract(CodecContract):
    tolerance = 1  # sums of floats round otherwise with other thread counts
    fuzz_cases = 10
    fuzz_seconds = 120
    params: ClassVar[Mapping[str, Param]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, weights: Mapping[str, Path]) -> Mapping[str, Path]:
        return weights

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, files: Mapping[str, Path]) -> Preset:
        spec = CodecSpec("perco", 1, {**PARAMS, **cls.params}, tuple(files))
        reads = spec.params["captions"] is True
        return Preset("perco-test", spec, bpp=0.01, summary="untrained", reads_caption=reads)


class TestModelledIndices(_Contract):
    params: ClassVar[Mapping[str, Param]] = {"steps": 1}


class TestDigitsWithoutCaptions(_Contract):
    params: ClassVar[Mapping[str, Param]] = {
        **COARSE, "indices": "digits", "captions": False, "guidance": 1.0, "steps": 1,
    }  # fmt: skip


class TestPercoTiny(CodecSuite):
    preset = "perco-tiny-0.025"
    colours = 64  # they are generated, too
    tolerance = 1
    golden_tolerance = 2
    fuzz_cases = 4
    fuzz_seconds = 120

    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """The indices."""
        assert isinstance(codec, PercoCodec)
        grid = codec.grid(encoded.height, encoded.width)
        return codec.unpack(encoded.bitstream, *grid).astype("<u2").tobytes()


class TestPercoTinyCoarse(TestPercoTiny):
    preset = "perco-tiny-0.009"
    fuzz_cases = 2


@pytest.mark.parametrize("kind", KINDS)
def test_indices_come_back(codec: PercoCodec, weights: Mapping[str, Path], kind: str) -> None:
    for one in (codec, tiny_codec(weights, indices="digits"), tiny_codec(weights, **COARSE)):
        encoded = encode_one(one, KINDS[kind](120, 90))
        grid = one.grid(120, 90)
        indices = one.unpack(encoded.bitstream, *grid)
        assert indices.shape == grid == ((8, 6) if one.params.shrink == 1 else (4, 3))
        assert indices.max() < one.params.codes
        assert one.pack(indices) == encoded.bitstream


def test_photographs_use_many_codes_and_the_model_saves_bits(
    codec: PercoCodec, weights: Mapping[str, Path]
) -> None:
    digits = tiny_codec(weights, indices="digits")
    first, second = (encode_one(one, photo(300, 400)) for one in (codec, digits))
    indices = codec.unpack(first.bitstream, 19, 25)
    assert len(np.unique(indices)) > 8
    assert np.array_equal(indices, digits.unpack(second.bitstream, 19, 25))
    assert len(second.bitstream) == 19 * 25 * 4 // 8 + 1
    assert len(first.bitstream) < 0.92 * len(second.bitstream)


def test_indices_are_the_same_in_another_process(codec: PercoCodec, weights: Mapping[str, Path]) -> None:
    encoded = encode_one(codec, photo(200, 300))
    files = {name: str(file) for name, file in weights.items()}
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1);"
        "from tests.tiny_perco import tiny_codec;"
        f"codec = tiny_codec({{name: Path(file) for name, file in {files!r}.items()}});"
        f"print(codec.unpack(bytes.fromhex({encoded.bitstream.hex()!r}), 13, 19).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == codec.unpack(encoded.bitstream, 13, 19).tobytes().hex()


def test_the_first_noise_follows_from_the_bitstream() -> None:
    noise = first_noise(b"one", 4, 30, 50)
    assert torch.equal(noise, first_noise(b"one", 4, 30, 50))
    assert not torch.equal(noise, first_noise(b"two", 4, 30, 50))
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


def test_pictures_larger_than_a_tile_are_drawn_in_tiles_without_seams(
    weights: Mapping[str, Path],
) -> None:
    whole, tiled = (tiny_codec(weights, tile=tile, overlap=4) for tile in (64, 16))
    encoded = encode_one(whole, photo(300, 640))
    first, second = (decode_one(one, encoded).astype(float) for one in (whole, tiled))
    assert first.shape == second.shape
    # Group norms see another part of the picture: not equal, but near, at the tiles' borders as elsewhere.
    apart_w = np.abs(first - second).mean((0, 2))
    assert apart_w.mean() < 12
    assert apart_w.max() < 3 * apart_w.mean() + 2


def test_what_the_caption_says_matters(codec: PercoCodec) -> None:
    encoded = encode_one(codec, photo(100, 100))
    other = replace(encoded, caption="A dog, a dog.")
    assert apart(decode_one(codec, encoded), decode_one(codec, other)) > 0


def test_a_preset_that_reads_no_captions_needs_none(weights: Mapping[str, Path]) -> None:
    blind = tiny_codec(weights, captions=False, guidance=1.0)
    (encoded,) = blind.encode([Picture(photo(40, 40), None)])
    assert encoded.caption is None
    told = replace(encoded, caption="a dog " * 100)
    assert apart(decode_one(blind, encoded), decode_one(blind, told)) == 0


def test_a_missing_caption_is_refused(codec: PercoCodec) -> None:
    with pytest.raises(ValueError, match="no caption"):
        codec.encode([Picture(photo(40, 40), None)])
    with pytest.raises(ValueError, match="no caption"):
        codec.decode([replace(encode_one(codec, photo(40, 40)), caption=None)])


def test_a_long_caption_is_stored_as_far_as_it_is_read(codec: PercoCodec) -> None:
    caption = "A small picture of one cat, and of one dog."
    (encoded,) = codec.encode([Picture(photo(40, 40), caption)])
    assert encoded.caption == "A small picture of one"
    decode_one(codec, encoded)
    with pytest.raises(ValueError, match="a caption of 10 words, expected up to 5"):
        codec.decode([replace(encoded, caption=caption)])


@pytest.mark.parametrize("indices", ["model", "digits"])
@pytest.mark.parametrize("bitstream", [b"", b"\x00", b"\xff" * 7, bytes(7), bytes(10**6)])
def test_a_bitstream_that_is_none_is_refused(
    weights: Mapping[str, Path], indices: str, bitstream: bytes
) -> None:
    codec = tiny_codec(weights, indices=indices)
    with pytest.raises(ValueError, match="a bitstream"):
        codec.decode([EncodedImage(bitstream, CAPTION, 30, 40)])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("latents", "pixels", "expected one of embedded"),
        ("latents", "stable-diffusion", "2 weights, expected 3"),
        ("codes", 17, "these weights know: 1/1 with 16 codes, 1/2 with 40 codes"),
        ("shrink", 2, "these weights know"),
        ("codes", "16", "expected int"),
        ("captions", 1, "expected bool"),
        ("steps", 0, "expected 1 to 1000"),
        ("guidance", 0.5, "expected 1 to 30"),
        ("precision", "fp16", "expected one of fp32, bf16"),
        ("overlap", 20, "expected 0 to 12"),
        ("beam", 1, "with the parameter 'beam'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    weights: Mapping[str, Path], name: str, value: Param, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        tiny_codec(weights, **{name: value})


def test_another_version_or_other_weights_are_refused(
    codec: PercoCodec, weights: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="version 2"):
        load_perco(replace(codec.spec, version=2), weights, "cpu")
    with pytest.raises(ValueError, match="without the parameter 'steps'"):
        load_perco(
            replace(codec.spec, params={k: v for k, v in codec.spec.params.items() if k != "steps"}),
            weights,
            "cpu",
        )
    with pytest.raises(ValueError, match="are not here"):
        load_perco(codec.spec, {}, "cpu")
    first, second = codec.spec.weights
    for name in (first, second):
        file = tmp_path / "cut.safetensors"
        file.write_bytes(weights[name].read_bytes()[:-100])
        with pytest.raises(ValueError, match="other weights"):
            load_perco(codec.spec, {**weights, name: file}, "cpu")
    with pytest.raises(ValueError, match="other weights"):
        load_perco(replace(codec.spec, weights=(second, first)), weights, "cpu")


def test_bf16_draws_nearly_the_same(codec: PercoCodec, weights: Mapping[str, Path]) -> None:
    encoded = encode_one(codec, photo(64, 64))
    coarse = decode_one(tiny_codec(weights, precision="bf16"), encoded)
    assert np.abs(coarse.astype(float) - decode_one(codec, encoded)).mean() < 8
