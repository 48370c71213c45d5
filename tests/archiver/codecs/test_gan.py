import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import archiver.codecs.gan
from archiver.codecs import load_codec
from archiver.codecs.gan import GanCodec
from archiver.codecs.gan_labels import OWN, cell_labels
from archiver.presets import Preset
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Codec, Picture
from tests.codec_suite import CodecContract, CodecSuite, apart, check_tiles, damaged, decode_one, encode_one
from tests.golden_files import sha256
from tests.samples import KINDS, SIZES, photo
from tests.tiny_gan import PAPER, tiny_codec, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def codec(weights: Mapping[str, Path]) -> GanCodec:
    return tiny_codec(weights)


class TestGan(CodecSuite):
    preset = "gan-0.02"
    tolerance = 1  # sums of floats round otherwise with other thread counts
    golden_tolerance = 2
    colours = 40  # a made picture of pure colours is 32 off
    fuzz_cases = 10
    fuzz_seconds = 120

    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """Symbols and labels."""
        assert isinstance(codec, GanCodec)
        coded = codec.unpack(encoded.bitstream, *cells(encoded))
        return coded.symbols_chw.tobytes() + coded.labels_hw.tobytes()


class TestGanHighest(TestGan):
    preset = "gan-0.04"
    fuzz_cases = 5


class TestTinyGan(CodecContract):
    tolerance = 1  # sums of floats round otherwise with other thread counts
    fuzz_cases = 15
    fuzz_seconds = 60

    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, weights: Mapping[str, Path]) -> Mapping[str, Path]:
        return weights

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, files: Mapping[str, Path]) -> Preset:
        spec = CodecSpec("gan", 1, {"channels": 4}, tuple(files))
        return Preset("gan-tiny", spec, bpp=0.013, summary="untrained", selective=True)


def lower_half(height: int, width: int, label: int) -> NDArray[np.uint8]:
    """The upper half is coded, the lower drawn."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[height // 2 :] = label
    return labels


def selective(codec: GanCodec, labels: NDArray[np.uint8]) -> EncodedImage:
    (encoded,) = codec.encode([Picture(photo(*labels.shape), None, labels)])
    return encoded


def cells(encoded: EncodedImage) -> tuple[int, int]:
    return max(2, -(-encoded.height // 16)), max(2, -(-encoded.width // 16))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_of_any_size_comes_back_in_its_size(codec: GanCodec, height: int, width: int) -> None:
    assert decode_one(codec, encode_one(codec, photo(height, width))).shape == (height, width, 3)
    labels = lower_half(height, width, OWN)
    assert decode_one(codec, selective(codec, labels)).shape == (height, width, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_are_all_five_at_most_and_come_back(codec: GanCodec, kind: str) -> None:
    encoded = encode_one(codec, KINDS[kind](120, 90))
    coded = codec.unpack(encoded.bitstream, 8, 6)
    assert coded.symbols_chw.shape == (4, 8, 6)
    assert coded.symbols_chw.max() <= 4
    assert codec.pack(coded) == encoded.bitstream


def test_a_lower_rate_is_the_first_channels_of_a_higher_one(
    codec: GanCodec, weights: Mapping[str, Path]
) -> None:
    few = tiny_codec(weights, channels=2)
    first, second = (one.unpack(encode_one(one, photo(200, 300)).bitstream, 13, 19) for one in (few, codec))
    assert np.array_equal(first.symbols_chw, second.symbols_chw[:2])
    assert len(np.unique(second.symbols_chw)) > 2


def test_tiles_equal_the_whole(codec: GanCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tiles(codec, archiver.codecs.gan, ("DRAWN_REACH", "THOUGHT_REACH"), monkeypatch)


def test_cells_that_are_drawn_cost_nothing_and_the_others_stay_as_they_are(codec: GanCodec) -> None:
    whole = encode_one(codec, photo(256, 384))
    half = selective(codec, lower_half(256, 384, 3))
    most = selective(codec, lower_half(256, 384, 3) | _left(256, 384))
    assert len(most.bitstream) < len(half.bitstream) < len(whole.bitstream)
    coded, drawn = (codec.unpack(one.bitstream, 16, 24) for one in (whole, half))
    assert np.array_equal(drawn.symbols_chw[:, :8], coded.symbols_chw[:, :8])
    assert np.all(drawn.symbols_chw[:, 8:] == 2)
    assert np.all(drawn.labels_hw[:8] == 0)
    assert np.all(drawn.labels_hw[8:] == 3)


def _left(height: int, width: int) -> NDArray[np.uint8]:
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[:, : width // 2] = 3
    return labels


def test_what_is_drawn_follows_from_its_label(codec: GanCodec) -> None:
    first, second = (
        decode_one(codec, selective(codec, lower_half(256, 384, label))).astype(int) for label in (2, 5)
    )
    assert np.abs(first - second)[160:].mean() > np.abs(first - second)[:64].mean()


def test_labels_of_the_codecs_own_come_from_the_picture(codec: GanCodec) -> None:
    encoded = selective(codec, lower_half(256, 384, OWN))
    labels = codec.unpack(encoded.bitstream, 16, 24).labels_hw
    assert set(np.unique(labels[8:])) <= set(range(1, 7))
    assert np.all(labels[:8] == 0)


def test_a_cell_is_coded_where_any_pixel_is_and_else_what_most_are() -> None:
    labels = np.array(
        [[1, 1, 2, 2, 2], [1, 0, 2, 5, 5], [7, OWN, OWN, OWN, OWN], [7, 7, OWN, OWN, OWN]], dtype=np.uint8
    )
    own = np.array([[9, 9, 9], [9, 8, 9]], dtype=np.uint8)
    assert cell_labels(labels, own, 2).tolist() == [[0, 2, 2], [7, 8, 9]]


@pytest.mark.parametrize(("height", "width"), [(2, 6), (5, 6), (4, 4), (4, 7), (0, 0)])
def test_labels_of_another_picture_are_refused(height: int, width: int) -> None:
    own = np.ones((2, 3), dtype=np.uint8)
    with pytest.raises(
        ValueError, match=f"labels of {width} x {height} pixels, expected some of 3 x 2 cells of 2"
    ):
        cell_labels(np.zeros((height, width), dtype=np.uint8), own, 2)


def test_a_picture_with_labels_of_another_is_refused(codec: GanCodec) -> None:
    for height, width in ((32, 64), (96, 64), (64, 100)):
        with pytest.raises(ValueError, match=f"labels of {width} x {height} pixels"):
            codec.encode([Picture(photo(64, 64), None, lower_half(height, width, 3))])


def test_a_label_that_the_weights_do_not_know_is_refused(codec: GanCodec) -> None:
    with pytest.raises(ValueError, match="label 9, these weights know 1 to 6"):
        selective(codec, lower_half(64, 64, 9))


def test_pictures_decode_alone_as_in_any_batch(codec: GanCodec) -> None:
    several = [encode_one(codec, photo(50 + n, 70)) for n in range(3)] + [
        selective(codec, lower_half(64, 64, 1))
    ]
    for one, there in zip(several, codec.decode(several), strict=True):
        assert apart(decode_one(codec, one), there) == 0


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "resized", "lengthened"])
def test_a_damaged_bitstream_is_refused_or_gives_a_picture_of_the_right_size(
    codec: GanCodec, damage: str
) -> None:
    several = [encode_one(codec, photo(64, 90)), selective(codec, lower_half(90, 64, OWN))]
    started = time.monotonic()
    for encoded in damaged(several, damage, 40):
        with suppress(ValueError):
            assert decode_one(codec, encoded).shape == (encoded.height, encoded.width, 3)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("bitstream", [b"", b"\x00", b"\x03abc", b"\xff" * 7, b"\x01" + bytes(10**6)])
def test_a_bitstream_that_is_none_is_refused(codec: GanCodec, bitstream: bytes) -> None:
    with pytest.raises(ValueError, match="a bitstream"):
        codec.decode([EncodedImage(bitstream, None, 30, 40)])


def test_symbols_are_the_same_in_another_process(codec: GanCodec, weights: Mapping[str, Path]) -> None:
    encoded = selective(codec, lower_half(200, 300, OWN))
    ((name, file),) = weights.items()
    code = (
        "import sys; from pathlib import Path; from tests.tiny_gan import tiny_codec;"
        f"codec = tiny_codec({{{name!r}: Path({str(file)!r})}});"
        f"coded = codec.unpack(bytes.fromhex({encoded.bitstream.hex()!r}), 13, 19);"
        "print((coded.symbols_chw.tobytes() + coded.labels_hw.tobytes()).hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    coded = codec.unpack(encoded.bitstream, 13, 19)
    assert run.stdout.strip() == (coded.symbols_chw.tobytes() + coded.labels_hw.tobytes()).hex()


@pytest.mark.parametrize("channels", [0, 5, True, "4", None])
def test_channels_that_the_weights_do_not_have_are_refused(
    weights: Mapping[str, Path], channels: int | str | None
) -> None:
    params: dict[str, int | float | str | bool] = {} if channels is None else {"channels": channels}
    with pytest.raises(ValueError, match="expected 1 to 4"):
        load_codec(CodecSpec("gan", 1, params, tuple(weights)), weights, "cpu")


def test_another_version_parameter_or_weights_are_refused(
    codec: GanCodec, weights: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="version 2"):
        load_codec(replace(codec.spec, version=2), weights, "cpu")
    with pytest.raises(ValueError, match="beam"):
        load_codec(replace(codec.spec, params={"channels": 2, "beam": 1}), weights, "cpu")
    with pytest.raises(ValueError, match="are not here"):
        load_codec(codec.spec, {}, "cpu")
    file = tmp_path / "cut.safetensors"
    file.write_bytes(next(iter(weights.values())).read_bytes()[:-100])
    with pytest.raises(ValueError, match="other weights"):
        load_codec(codec.spec, {codec.spec.weights[0]: file}, "cpu")


def test_the_layout_of_the_paper_codes_and_draws(tmp_path: Path) -> None:
    weights = tiny_weights(tmp_path, PAPER)
    assert list(weights) == [sha256((tmp_path / "tiny.safetensors").read_bytes())]
    paper = tiny_codec(weights)
    for height, width in ((1, 1), (100, 130)):
        encoded = encode_one(paper, photo(height, width))
        assert decode_one(paper, encoded).shape == (height, width, 3)
        assert paper.unpack(encoded.bitstream, *cells(encoded)).symbols_chw.shape == (4, *cells(encoded))
