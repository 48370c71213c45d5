import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archiver.codecs import layered, layered_blocks, layered_drawing, layered_networks, load_codec
from archiver.codecs.av1 import decode_still, wrap
from archiver.codecs.drawing import joined, noise, normal, true_to_base
from archiver.codecs.layered import LayeredCodec
from archiver.codecs.layered_base import join, split
from archiver.codecs.layered_drawing import mirrored
from archiver.evaluation.artefacts import artefacts, exceeded
from archiver.perception.lpips import LPIPS
from archiver.presets import Preset, find_preset
from archiver.weights import shipped_weights
from manifests.records import EncodedImage
from pipelines.codec import Codec, Pixels
from tests.codec_suite import CodecSuite, apart, decode_one, encode_one, load_preset
from tests.samples import KINDS, grey, photo, photographs


class TestLayered(CodecSuite):
    preset = "layered-0.03"
    tolerance = 1  # sums of floats round otherwise with other thread counts
    golden_tolerance = 2
    fuzz_cases = 20
    fuzz_seconds = 120

    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """The base: an AVIF file, whose planes the AV1 standard fixes."""
        scale = int(codec.spec.params["scale"])
        height, width = (-(-side // 16) * 16 // scale for side in (encoded.height, encoded.width))
        _, base = split(encoded.bitstream)
        still = decode_still(base, height, width)
        return wrap(base, height, width) + (still.tobytes() if still.mode == "L" else b"")


class TestLayered001(TestLayered):
    preset = "layered-0.012"
    fuzz_cases = 5


class TestLayered006(TestLayered):
    preset = "layered-0.06"
    fuzz_cases = 5


class TestLayered006Slow(TestLayered):
    preset = "layered-0.06-slow"
    fuzz_cases = 5

    @pytest.fixture(scope="class")
    @classmethod
    def codec(cls, asked: Preset, files: Mapping[str, Path]) -> Codec:
        """Which takes one step to a style, not all of them: how far it goes changes nothing that is tested here."""
        loaded = load_codec(asked.spec, files, "cpu")
        assert isinstance(loaded, LayeredCodec)
        return replace(loaded, style_steps=1)

    def more_golden(self) -> dict[str, Pixels]:
        """Large enough for more than one number of a style."""
        return {"styled": photo(144, 192)}


@pytest.fixture(scope="module")
def codec() -> LayeredCodec:
    loaded = load_preset("layered-0.03")
    assert isinstance(loaded, LayeredCodec)
    return loaded


def test_any_reader_of_avif_shows_the_base(codec: LayeredCodec) -> None:
    encoded = encode_one(codec, photo(90, 130))
    base = codec.base(encoded)
    assert base.size == (144 // codec.scale, 96 // codec.scale)
    file = wrap(split(encoded.bitstream)[1], base.height, base.width)
    assert Image.open(io.BytesIO(file)).convert("RGB").tobytes() == base.convert("RGB").tobytes()


def test_parts_of_a_bitstream_come_apart_again() -> None:
    for size in (0, 1, 254, 255, 70_000):
        side, base = bytes(size), b"base"
        assert split(join(side, base)) == (side, base)
        assert len(join(side, base)) == size + len(base) + (1 if size < 255 else 4)
    for damaged in (b"", b"\0", b"\x05abcde", b"\xff\0", b"\xff\0\0\1a"):
        with pytest.raises(ValueError, match="side bytes and a base"):
            split(damaged)


def test_side_bytes_come_back_as_the_symbols_that_were_seen(codec: LayeredCodec) -> None:
    pixels_hwc = photo(200, 260)
    seen = codec.observed(pixels_hwc)
    side, _ = split(encode_one(codec, pixels_hwc).bitstream)
    assert codec.coder is not None
    _, h, w = seen.symbols_chw.shape
    found = codec.coder.unpack(side, h, w, codec.scale, codec.quality)
    assert np.array_equal(found.symbols_chw, seen.symbols_chw)
    assert np.array_equal(found.style, seen.style)


def test_a_larger_step_makes_fewer_side_bytes_of_the_same_size(codec: LayeredCodec) -> None:
    pixels_hwc = photo(200, 260)
    coarser = replace(codec, step=2 * codec.step)
    (side, base), (less, same) = (split(encode_one(c, pixels_hwc).bitstream) for c in (codec, coarser))
    assert same == base
    assert len(less) < len(side)
    told, meant = (c.observed(pixels_hwc).symbols_chw * c.step for c in (codec, coarser))
    assert np.abs(told - meant).max() <= 1.5 * codec.step + 1e-4
    for wrong in (0, 9, 1001, 1.5, "1"):
        params = {**codec.spec.params, "step": wrong}
        with pytest.raises(ValueError, match="step"):
            load_codec(replace(codec.spec, params=params), shipped_weights(), "cpu")


def test_side_symbols_bring_the_picture_nearer(codec: LayeredCodec) -> None:
    """Against the same base with symbols that are all zero, by LPIPS."""
    assert codec.coder is not None
    distance = LPIPS("alexnet").eval()
    for pixels_hwc in photographs():
        encoded = encode_one(codec, pixels_hwc)
        side, base = split(encoded.bitstream)
        seen = codec.observed(pixels_hwc)
        nothing = replace(seen, symbols_chw=np.zeros_like(seen.symbols_chw))
        silent = codec.coder.pack(nothing, codec.scale, codec.quality)
        assert len(silent) < len(side)
        first, second = (
            float(distance(_tensor(pixels_hwc), _tensor(decode_one(codec, one))))
            for one in (encoded, replace(encoded, bitstream=join(silent, base)))
        )
        assert first < second


def _tensor(pixels_hwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels_hwc.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_tiles_join_without_a_seam(codec: LayeredCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_hwc = photo(200, 260)
    encoded = encode_one(codec, pixels_hwc)
    drawn, seen = decode_one(codec, encoded), codec.observed(pixels_hwc)
    for module in (layered, layered_drawing):
        monkeypatch.setattr(module, "TILE", 4)
    for module in (layered_blocks, layered_networks):
        monkeypatch.setattr(module, "ROWS", 5)
    assert apart(drawn, decode_one(codec, encoded)) <= 1
    # Sums of floats, before rounding, are not the same to the last bit.
    found = codec.observed(pixels_hwc)
    assert np.mean(found.symbols_chw != seen.symbols_chw) < 0.002
    assert np.abs(found.style - seen.style).max(initial=0) <= 1


def test_a_smaller_margin_would_show(codec: LayeredCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Margins are no larger than they must be, by much: the network does look that far."""
    encoded = encode_one(codec, photo(200, 260))
    drawn = decode_one(codec, encoded)
    monkeypatch.setattr(layered_drawing, "TILE", 4)
    monkeypatch.setattr(layered_drawing, "DRAWN_REACH", 1)
    assert apart(drawn, decode_one(codec, encoded)) > 1


@pytest.mark.parametrize("columns", [slice(0, 400), slice(208, 400)])  # everywhere, and on one half
def test_what_cells_repeat_is_taken_off(columns: slice) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 190, (136, 200, 3), dtype=np.uint8))
    shown = np.array(small.resize((400, 272), Image.Resampling.BICUBIC))
    grid = np.zeros((272, 400, 1), dtype=np.uint8)
    grid[::4, columns][:, ::4] = 24
    drawn = true_to_base(shown + grid, small, 2)
    seen = slice(columns.start + 96 * bool(columns.start), 400)  # away from the edge
    before, after = (
        float(np.abs(_repeated(x[:, seen] - shown[:, seen].astype(float))).max())
        for x in (shown + grid, drawn)
    )
    assert before > 20
    assert after < before / 5


def test_beyond_the_edges_a_picture_is_mirrored_again_and_again() -> None:
    symbols_chw = np.array([[[1, 2], [3, 4], [5, 6]]], dtype=np.int8)
    (found,) = mirrored(symbols_chw, 3, (1, 2))
    assert found[:, 3].tolist() == [5, 3, 1, 1, 3, 5, 5, 3, 1]
    assert found[3].tolist() == [2, 2, 1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(("height", "width"), [(1, 97), (97, 1), (15, 40)])
def test_a_thin_picture_is_its_base_alone(codec: LayeredCodec, height: int, width: int) -> None:
    encoded = encode_one(codec, photo(height, width))
    side, base = split(encoded.bitstream)
    assert side == b""
    decoded = decode_one(codec, encoded)
    assert np.array_equal(decoded, codec.decode_base(encoded))
    assert exceeded(artefacts(photo(height, width), decoded)) == []
    strange = replace(encoded, bitstream=join(b"abc", base))
    with pytest.raises(ValueError, match="3 side bytes for a picture thinner than 16 pixels"):
        codec.decode([strange])


def test_what_one_cell_has_stays() -> None:
    small = Image.new("RGB", (128, 128), (90, 90, 90))
    shown = np.array(small.resize((256, 256)))
    shown[100, 100] = 200
    drawn = true_to_base(shown.copy(), small, 2)
    assert np.abs(drawn.astype(int) - shown).max() <= 3


def _repeated(x: np.ndarray) -> np.ndarray:
    mean = x.reshape(x.shape[0] // 16, 16, x.shape[1] // 16, 16, 3).mean((0, 2))
    return np.asarray(mean - mean.mean((0, 1)))


def test_grey_stays_grey(codec: LayeredCodec) -> None:
    decoded = decode_one(codec, encode_one(codec, grey(65, 47)))
    assert np.array_equal(decoded[..., 0], decoded[..., 1])
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_the_network_draws_what_the_base_lost(codec: LayeredCodec) -> None:
    """Photographs get back contrast between neighbours that the enlarged base has not."""
    for pixels_hwc in photographs():
        encoded = encode_one(codec, pixels_hwc)
        size = (pixels_hwc.shape[1], pixels_hwc.shape[0])
        enlarged = codec.base(encoded).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        drawn = decode_one(codec, encoded)
        assert _contrast(drawn) > 1.2 * _contrast(np.asarray(enlarged))


def _contrast(pixels_hwc: np.ndarray) -> float:
    luma = pixels_hwc.astype(float).mean(axis=2)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


@pytest.mark.parametrize("preset", ["layered-0.012", "layered-0.03", "layered-0.06"])
def test_photographs_come_back_without_the_faults_of_networks(preset: str) -> None:
    codec = load_preset(preset)
    for pixels_hwc in photographs():
        decoded = decode_one(codec, encode_one(codec, pixels_hwc))
        assert exceeded(artefacts(pixels_hwc, decoded)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(256, 256), (1, 200)])
def test_extreme_pictures_do_not_blow_up(codec: LayeredCodec, kind: str, size: tuple[int, int]) -> None:
    pixels_hwc = KINDS[kind](*size)
    found = artefacts(pixels_hwc, decode_one(codec, encode_one(codec, pixels_hwc)))
    # Of a single row, the base at half size keeps colours no better than that.
    faults = {"blow_up"} if size[0] == 1 else {"colour", "blow_up"}
    assert not faults & set(exceeded(found)), found


def test_what_is_joined_keeps_the_layout_of_its_first_part() -> None:
    features, shown, grain = torch.randn(1, 4, 6, 5), torch.randn(1, 3, 6, 5), torch.randn(1, 1, 6, 5)
    for layout in (torch.contiguous_format, torch.channels_last):
        made = joined(features.contiguous(memory_format=layout), shown, grain)
        assert made.is_contiguous(memory_format=layout)
        assert torch.equal(made, torch.cat((features, shown, grain), 1))


def test_noise_is_the_same_for_ever_and_nearly_normal() -> None:
    cells, pixels = noise(b"a bitstream", 64, 96)
    assert cells.shape == (16, 24)
    assert pixels.shape == (64, 96)
    assert pixels[0, :6].tolist() == noise(b"a bitstream", 64, 96)[1][0, :6].tolist()
    assert not np.array_equal(pixels, noise(b"another", 64, 96)[1])
    unit = normal(torch.from_numpy(noise(b"large", 1024, 1024)[1]))
    assert abs(float(unit.mean())) < 0.01
    assert abs(float(unit.std()) - 1) < 0.01


def test_missing_and_wrong_weights_are_refused(tmp_path: Path) -> None:
    spec = find_preset("layered-0.03").spec
    with pytest.raises(ValueError, match="not here"):
        load_codec(spec, {}, "cpu")
    with pytest.raises(ValueError, match="expected 1"):
        load_codec(replace(spec, weights=()), shipped_weights(), "cpu")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="other weights"):
        load_codec(spec, {spec.weights[0]: other}, "cpu")
