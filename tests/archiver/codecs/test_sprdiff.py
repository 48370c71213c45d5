import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import archiver.codecs.blending
import archiver.codecs.sprdiff
from archiver.codecs import load_codec
from archiver.codecs.blending import blended, spans
from archiver.codecs.sprdiff import SprdiffCodec
from archiver.codecs.sprdiff_shape import BRANCHES, CELL
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Codec, Picture, Pixels
from tests.codec_suite import CodecSuite, apart, check_tiles, damaged, decode_one, encode_one
from tests.golden_files import sha256
from tests.samples import KINDS, SIZES, photo, photograph
from tests.tiny_sprdiff import tiny_codec, tiny_weights

ROOT = Path(__file__).parents[3]
MANY = 1000
DECODE_BACKWARDS = """
import numpy as np, torch
from pathlib import Path
from tests.tiny_sprdiff import tiny_codec
assert torch.get_num_threads() == 2
codec = tiny_codec({{name: Path(file) for name, file in {files!r}.items()}})
with np.load({file!r}) as found:
    bitstreams, lengths, symbols = found["bitstreams"], found["lengths"], found["symbols"]
    cells = found["cells"]
ends, borders, wrong = lengths.cumsum(), (8 * cells.prod(1)).cumsum(), 0
for place in reversed(range(len(lengths))):
    h, w = map(int, cells[place])
    bitstream = bitstreams[ends[place] - lengths[place] : ends[place]].tobytes()
    expected = symbols[borders[place] - 8 * h * w : borders[place]]
    wrong += not np.array_equal(codec.unpack(bitstream, h, w).ravel(), expected)
print(len(lengths), wrong)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestSprdiffTiny(CodecSuite):
    preset = "sprdiff-tiny-0.015"
    tolerance = 1  # sums of floats round otherwise with other thread counts
    golden_tolerance = 2
    fuzz_cases = 4
    fuzz_seconds = 120

    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """The symbols."""
        assert isinstance(codec, SprdiffCodec)
        h, w = (-(-side // CELL) for side in (encoded.height, encoded.width))
        return codec.unpack(encoded.bitstream, h, w).tobytes()


class TestSprdiffTinyLowest(TestSprdiffTiny):
    preset = "sprdiff-tiny-0.01"
    fuzz_cases = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def codec(weights: Mapping[str, Path]) -> SprdiffCodec:
    return tiny_codec(weights)


def cells(encoded: EncodedImage) -> tuple[int, int]:
    return -(-encoded.height // 32), -(-encoded.width // 32)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_of_any_size_comes_back_in_its_size(codec: SprdiffCodec, height: int, width: int) -> None:
    encoded = encode_one(codec, photo(height, width))
    for decoded in (decode_one(codec, encoded), codec.decode_coarse([encoded])[0]):
        assert decoded.shape == (height, width, 3)
        assert decoded.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_come_back(codec: SprdiffCodec, kind: str) -> None:
    encoded = encode_one(codec, KINDS[kind](120, 90))
    symbols = codec.unpack(encoded.bitstream, 4, 3)
    assert symbols.shape == (8, 4, 3)
    assert codec.pack(symbols) == encoded.bitstream


def test_photographs_have_symbols_that_vary_with_the_rate(weights: Mapping[str, Path]) -> None:
    found = [encode_one(tiny_codec(weights, rate), photo(200, 300)) for rate in range(3)]
    symbols = [tiny_codec(weights, rate).unpack(one.bitstream, 7, 10) for rate, one in enumerate(found)]
    spread = [float(np.abs(one.astype(int)).mean()) for one in symbols]
    assert 0.2 < spread[0] < spread[1] < spread[2]


def crops(count: int) -> list[Pixels]:
    """Windows of photographs, and noise in every seventh place."""
    numbers, made = np.random.default_rng(3), []
    several = [photograph(name) for name in ("chelsea", "coffee", "astronaut")]
    for place in range(count):
        height, width = (int(side) for side in numbers.integers(1, 70, 2))
        whole = several[place % 3]
        top, left = (int(numbers.integers(0, side - 70)) for side in whole.shape[:2])
        crop = whole[top : top + height, left : left + width]
        made.append(numbers.integers(0, 256, crop.shape, dtype=np.uint8) if place % 7 == 0 else crop)
    return made


def test_a_thousand_pictures_have_the_same_symbols_in_another_process_order_and_batch(
    codec: SprdiffCodec, weights: Mapping[str, Path], tmp_path: Path
) -> None:
    pictures = [Picture(crop, None) for crop in crops(MANY)]
    encoded = [image for first in range(0, MANY, 7) for image in codec.encode(pictures[first : first + 7])]
    planes = [codec.unpack(image.bitstream, *cells(image)).ravel() for image in encoded]
    file = tmp_path / "coded.npz"
    np.savez(
        file,
        bitstreams=np.frombuffer(b"".join(image.bitstream for image in encoded), np.uint8),
        lengths=np.array([len(image.bitstream) for image in encoded]),
        cells=np.array([cells(image) for image in encoded]),
        symbols=np.concatenate(planes),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    code = DECODE_BACKWARDS.format(files={name: str(path) for name, path in weights.items()}, file=str(file))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert run.stdout.split() == [str(MANY), "0"]
    assert len({image.bitstream for image in encoded}) > 0.9 * MANY


def test_pictures_decode_alone_as_in_any_batch(codec: SprdiffCodec) -> None:
    several = [encode_one(codec, photo(50 + n, 70)) for n in range(3)]
    for one, there in zip(several, codec.decode(several[::-1])[::-1], strict=True):
        assert apart(decode_one(codec, one), there) == 0


def test_the_colours_of_the_final_picture_are_the_coarse_ones(codec: SprdiffCodec) -> None:
    encoded = encode_one(codec, photo(256, 320))
    final, (coarse,) = decode_one(codec, encoded), codec.decode_coarse([encoded])
    assert apart(final, coarse) > 8
    means = [picture.reshape(4, 64, 5, 64, 3).astype(float).mean(axis=(1, 3)) for picture in (final, coarse)]
    inside = (coarse > 40) & (coarse < 215)
    assert inside.mean() > 0.5  # not so bright or dark that levels are cut
    assert float(np.median(np.abs(means[0] - means[1]))) < 3


def test_tiles_of_encoders_equal_the_whole(codec: SprdiffCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tiles(codec, archiver.codecs.sprdiff, ("REACH",), monkeypatch)


def test_a_picture_of_several_tiles_has_no_seams(
    codec: SprdiffCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_one(codec, photo(300, 450))
    whole = decode_one(codec, encoded).astype(int)
    monkeypatch.setattr(archiver.codecs.blending, "BLEND", 192)
    monkeypatch.setattr(archiver.codecs.blending, "OVERLAP", 96)
    assert len(spans(480)) > 2
    tiled = decode_one(codec, encoded).astype(int)
    assert np.abs(tiled - whole).max() > 0  # normalisation sees tiles: they are blended, not the same
    drift = (tiled - whole).mean(axis=2)
    steps = np.abs(np.diff(drift, axis=1)).mean(axis=0)
    assert steps.max() < 4 * np.abs(np.diff(whole.mean(axis=2), axis=1)).mean()


@pytest.mark.parametrize("size", [32, 768, 800, 1408, 5000 // 32 * 32])
def test_spans_cover_a_side_and_overlap(size: int) -> None:
    found = spans(size)
    assert found[0][0] == 0
    assert found[-1][1] == size
    for (_, end), (start, _) in pairwise(found):
        assert end - start >= 192 - 32
        assert start % 32 == 0


def test_blending_what_agrees_changes_nothing() -> None:
    plane = torch.arange(1600.0).view(1, 1, 40, 40)[..., :40, :40].repeat(1, 1, 1, 2)
    height, width = 40 * 32, 80 * 32
    made = blended(height, width, 32, lambda area: area.cut(plane, 32))
    assert torch.allclose(made, plane)


def test_each_branch_changes_what_it_should(codec: SprdiffCodec) -> None:
    picture = photo(128, 160)
    encoded = encode_one(codec, picture)
    whole = decode_one(codec, encoded)
    with torch.no_grad():
        for name in BRANCHES:
            codec.network.absent[name].fill_(3)
    try:
        for name in BRANCHES:
            without = replace(codec, left_out=frozenset({name}))
            same_symbols = encode_one(without, picture).bitstream == encoded.bitstream
            assert same_symbols == (name in ("pixel", "meaning")), name
            if same_symbols:
                assert apart(decode_one(without, encoded), whole) > 0
                assert apart(without.decode_coarse([encoded])[0], codec.decode_coarse([encoded])[0]) == 0
    finally:
        with torch.no_grad():
            for name in BRANCHES:
                codec.network.absent[name].zero_()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "resized", "lengthened"])
def test_a_damaged_bitstream_is_refused_or_gives_a_picture_of_the_right_size(
    codec: SprdiffCodec, damage: str
) -> None:
    several = [encode_one(codec, photo(64, 90)), encode_one(codec, photo(90, 64))]
    started = time.monotonic()
    for encoded in damaged(several, damage, 12):
        with suppress(ValueError):
            assert decode_one(codec, encoded).shape == (encoded.height, encoded.width, 3)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("bitstream", [b"", b"\x00", b"\x03abc", b"\xff" * 7, b"\x01" + bytes(10**6)])
def test_a_bitstream_that_is_none_is_refused(codec: SprdiffCodec, bitstream: bytes) -> None:
    with pytest.raises(ValueError, match="a bitstream"):
        codec.decode([EncodedImage(bitstream, None, 30, 40)])


@pytest.mark.parametrize(("height", "width"), [(10**9, 10**9), (1, 2**63), (0, 5), (5, -1)])
def test_a_size_that_cannot_be_is_refused(codec: SprdiffCodec, height: int, width: int) -> None:
    with pytest.raises(ValueError, match="pixels"):
        codec.decode([EncodedImage(b"\x01", None, height, width)])


@pytest.mark.parametrize("rate", [-1, 3, True, "1", None])
def test_a_rate_that_the_weights_do_not_have_is_refused(
    weights: Mapping[str, Path], rate: int | str | None
) -> None:
    params: dict[str, int | float | str | bool] = {} if rate is None else {"rate": rate}
    with pytest.raises(ValueError, match="expected 0 to 2"):
        load_codec(CodecSpec("sprdiff", 1, params, tuple(weights)), weights, "cpu")


def test_another_version_parameter_or_weights_are_refused(
    codec: SprdiffCodec, weights: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="version 2"):
        load_codec(replace(codec.spec, version=2), weights, "cpu")
    with pytest.raises(ValueError, match="beam"):
        load_codec(replace(codec.spec, params={"rate": 2, "beam": 1}), weights, "cpu")
    with pytest.raises(ValueError, match="are not here"):
        load_codec(codec.spec, {}, "cpu")
    names = codec.spec.weights
    for count, told in (
        (0, "without weights"),
        (1, "1 weights, expected 3 for"),
        (2, "2 weights, expected 3 for"),
    ):
        with pytest.raises(ValueError, match=told):
            load_codec(replace(codec.spec, weights=names[:count]), weights, "cpu")
    for wrong in ((names[1], names[0], names[2]), (names[0], names[1], names[0])):
        with pytest.raises(ValueError, match="other weights"):
            load_codec(replace(codec.spec, weights=wrong), weights, "cpu")
    file = tmp_path / "cut.safetensors"
    file.write_bytes(next(iter(weights.values())).read_bytes()[:-100])
    with pytest.raises(ValueError, match="other weights"):
        load_codec(codec.spec, {**weights, names[0]: file}, "cpu")
    assert names[0] == sha256(weights[names[0]].read_bytes())
