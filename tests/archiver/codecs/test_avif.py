from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from archiver.codecs import load_codec
from archiver.codecs.av1 import decode_still, wrap
from archiver.codecs.avif import avif_spec
from archiver.presets import find_preset
from manifests.records import EncodedImage
from pipelines.codec import Codec
from tests.codec_suite import CodecSuite, apart, decode_one, encode_one
from tests.golden_files import read_golden
from tests.samples import grey, photo


class TestAvif(CodecSuite):
    preset = "avif-0.1"

    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """The AVIF file that a bitstream stands for: what it decodes to, in planes, the AV1 standard fixes.

        Of grey pictures the plane too. Of pictures in colour Pillow shows no planes, only RGB made of them.
        """
        scale = int(codec.spec.params["scale"])
        height, width = -(-encoded.height // scale), -(-encoded.width // scale)
        still = decode_still(encoded.bitstream, height, width)
        return wrap(encoded.bitstream, height, width) + (still.tobytes() if still.mode == "L" else b"")


class TestAvif001(TestAvif):
    preset = "avif-0.01"
    fuzz_cases = 40


class TestAvif003(TestAvif):
    preset = "avif-0.03"
    fuzz_cases = 40


class TestAvif006(TestAvif):
    preset = "avif-0.06"
    fuzz_cases = 40


class TestAvif02(TestAvif):
    preset = "avif-0.2"
    fuzz_cases = 40


class TestAvif03(TestAvif):
    preset = "avif-0.3"
    fuzz_cases = 40


def test_a_spec_without_golden_files_fails() -> None:
    with pytest.raises(FileNotFoundError, match=r"make_golden\.py PRESET"):
        read_golden(avif_spec(3, 33))


def test_only_some_pillows_encode_and_the_others_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "AVIF")
    monkeypatch.setattr(Image, "init", lambda: None)
    codec = load_codec(avif_spec(2, 30), {}, "cpu")
    with pytest.raises(ValueError, match="Pillow cannot encode AVIF"):
        encode_one(codec, photo(8, 8))


def test_a_grey_picture_is_coded_grey_and_comes_back_grey() -> None:
    codec = load_codec(avif_spec(1, 50), {}, "cpu")
    encoded = encode_one(codec, grey(40, 60))
    assert encoded.bitstream[0] & 3 == 0
    decoded = decode_one(codec, encoded)
    assert np.all(decoded == decoded[..., :1])
    almost = grey(40, 60)
    almost[3, 4, 1] ^= 1
    assert encode_one(codec, almost).bitstream[0] & 3 == 1


def test_the_best_quality_at_full_size_is_nearly_the_picture() -> None:
    codec = load_codec(avif_spec(1, 99, "4:4:4"), {}, "cpu")
    assert apart(decode_one(codec, encode_one(codec, photo(31, 45))), photo(31, 45)) <= 8


def test_a_picture_of_a_side_too_long_for_av1_is_refused() -> None:
    codec = load_codec(avif_spec(1, 30), {}, "cpu")
    with pytest.raises(ValueError, match="40000 x 1 pixels, AV1 stills go up to 32768 a side"):
        encode_one(codec, np.zeros((1, 40_000, 3), dtype=np.uint8))
    halved = load_codec(avif_spec(2, 30), {}, "cpu")
    assert decode_one(halved, encode_one(halved, np.zeros((1, 40_000, 3), np.uint8))).shape == (1, 40_000, 3)


@pytest.mark.parametrize(
    "params",
    [
        {"scale": 0, "quality": 30, "chroma": "4:2:0"},
        {"scale": 1000, "quality": 30, "chroma": "4:2:0"},
        {"scale": 2.0, "quality": 30, "chroma": "4:2:0"},
        {"scale": True, "quality": 30, "chroma": "4:2:0"},
        {"scale": 2, "quality": 100, "chroma": "4:2:0"},
        {"scale": 2, "quality": 30, "chroma": "4:2:2"},
        {"scale": 2, "quality": 30},
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, int | float | str | bool]) -> None:
    with pytest.raises(ValueError, match="expected"):
        load_codec(replace(avif_spec(2, 30), params=params), {}, "cpu")


def test_an_unknown_codec_or_preset_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'mpeg', this program knows: avif"):
        load_codec(replace(avif_spec(2, 30), name="mpeg"), {}, "cpu")
    with pytest.raises(ValueError, match=r"'avif-9', this program knows: avif-0\.1, "):
        find_preset("avif-9")
