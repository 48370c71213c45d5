"""The suites that every codec passes. tests/archiver/codecs/test_avif.py shows how a preset asks for its own.

`python -m tests.codec_suite SPEC.json FILE.npz WEIGHTS...` decodes in another process what a test left in FILE.npz.
"""

import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from archiver.codecs import load_codec
from archiver.presets import Preset, find_preset
from archiver.weights import shipped_weights
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Codec, Picture, Pixels
from tests.golden_files import read_golden, sha256
from tests.samples import KINDS, SIZES, photo, photographs

ROOT = Path(__file__).parent.parent
CAPTION = "A small picture."


def load_preset(name: str) -> Codec:
    return load_codec(find_preset(name).spec, shipped_weights(), "cpu")


def encode_one(codec: Codec, pixels_hwc: Pixels) -> EncodedImage:
    (encoded,) = codec.encode([Picture(pixels_hwc, CAPTION)])
    return encoded


def decode_one(codec: Codec, encoded: EncodedImage) -> Pixels:
    (pixels_hwc,) = codec.decode([encoded])
    return pixels_hwc


def apart(first: Pixels, second: Pixels) -> int:
    """Levels between two pictures at their worst pixel."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def check_tiles(codec: Codec, tiled: ModuleType, reaches: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """Small tiles of `tiled`, a codec's module, equal the whole; not so if they see nothing around them."""
    whole = encode_one(codec, photo(410, 620))
    pixels_hwc = decode_one(codec, whole)
    patch.setattr(tiled, "TILE", 8)
    assert encode_one(codec, photo(410, 620)).bitstream == whole.bitstream
    assert apart(decode_one(codec, whole), pixels_hwc) <= 1
    for reach in reaches:
        patch.setattr(tiled, reach, 0)
    assert apart(decode_one(codec, whole), pixels_hwc) > 1  # the picture is one where seams would show


class CodecContract:
    """What a codec does with any weights, trained or not. Subclass it as `TestX`, and name the preset.

    Where it is none of the program's, override the fixtures `asked` and `files`.
    """

    preset: ClassVar[str]
    tolerance: ClassVar[int] = 0  # levels that pixels may differ by between thread counts of one machine
    fuzz_cases: ClassVar[int] = 150  # of each kind
    fuzz_seconds: ClassVar[float] = 30

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls) -> Preset:
        return find_preset(cls.preset)

    @pytest.fixture(scope="class")
    @classmethod
    def files(cls) -> Mapping[str, Path]:
        """Weights, sha256 -> file."""
        return shipped_weights()

    @pytest.fixture(scope="class")
    @classmethod
    def codec(cls, asked: Preset, files: Mapping[str, Path]) -> Codec:
        return load_codec(asked.spec, files, "cpu")

    def test_preset_and_codec_agree_on_whether_captions_are_read(self, codec: Codec, asked: Preset) -> None:
        """The preset refuses `--captions none`; the codec itself makes pipelines refuse an image without one."""
        assert codec.reads_caption == asked.reads_caption

    def test_preset_and_codec_agree_on_whether_parts_are_left_out(self, codec: Codec, asked: Preset) -> None:
        """The preset refuses `--keep`; the codec would not see what it asks for."""
        labels = np.full((96, 96), 255, dtype=np.uint8)
        labels[:16] = 0
        whole, part = codec.encode([Picture(photo(96, 96), CAPTION), Picture(photo(96, 96), CAPTION, labels)])
        assert (part.bitstream != whole.bitstream) == asked.selective

    @pytest.fixture(scope="class")
    @classmethod
    def several(cls, codec: Codec) -> list[EncodedImage]:
        """Pictures of all kinds, of different sizes."""
        sizes = [(40 + 7 * place, 60 - 5 * place) for place in range(len(KINDS))]
        made = [kind(*size) for kind, size in zip(KINDS.values(), sizes, strict=True)]
        return codec.encode([Picture(pixels_hwc, CAPTION) for pixels_hwc in made])

    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_a_picture_of_any_size_comes_back_in_its_size(
        self, codec: Codec, height: int, width: int
    ) -> None:
        encoded = encode_one(codec, photo(height, width))
        assert (encoded.height, encoded.width, encoded.caption) == (height, width, CAPTION)
        decoded = decode_one(codec, encoded)
        assert decoded.shape == (height, width, 3)
        assert decoded.dtype == np.uint8

    def test_decoding_twice_gives_the_same_pixels(self, codec: Codec, several: list[EncodedImage]) -> None:
        for first, second in zip(codec.decode(several), codec.decode(several), strict=True):
            assert apart(first, second) == 0

    def test_a_picture_alone_equals_the_picture_in_any_batch(
        self, codec: Codec, several: list[EncodedImage]
    ) -> None:
        together = codec.decode(several)
        reverse = codec.decode(several[::-1])[::-1]
        for encoded, first, second in zip(several, together, reverse, strict=True):
            assert apart(first, second) == 0
            assert apart(first, decode_one(codec, encoded)) == 0

    def test_nothing_is_encoded_and_decoded_to_nothing(self, codec: Codec) -> None:
        assert codec.encode([]) == []
        assert codec.decode([]) == []

    def test_encoding_leaves_the_pixels_alone(self, codec: Codec) -> None:
        pixels_hwc = photo(20, 30)
        pixels_hwc.setflags(write=False)
        encode_one(codec, pixels_hwc)

    def test_another_process_with_one_thread_gives_the_same_pixels(
        self, codec: Codec, files: Mapping[str, Path], several: list[EncodedImage], tmp_path: Path
    ) -> None:
        file, spec = tmp_path / "pictures.npz", tmp_path / "spec.json"
        write_encoded(file, several)
        spec.write_bytes(codec.spec.to_json())
        needed = [str(files[name]) for name in codec.spec.weights]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "error", "-m", "tests.codec_suite", str(spec), str(file), *needed]
        subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=120)
        with np.load(file) as there:
            for place, here in enumerate(codec.decode(several)):
                assert apart(here, there[f"decoded{place}"]) <= self.tolerance

    def test_the_spec_comes_back_from_its_json(
        self, codec: Codec, asked: Preset, files: Mapping[str, Path], several: list[EncodedImage]
    ) -> None:
        spec = CodecSpec.from_json(codec.spec.to_json())
        assert spec == codec.spec == asked.spec
        again = load_codec(spec, files, "cpu")
        assert apart(decode_one(again, several[0]), decode_one(codec, several[0])) == 0

    def test_a_spec_of_another_version_is_refused(self, codec: Codec, files: Mapping[str, Path]) -> None:
        with pytest.raises(ValueError, match=f"version {codec.spec.version + 1}"):
            load_codec(replace(codec.spec, version=codec.spec.version + 1), files, "cpu")

    def test_a_parameter_that_the_program_does_not_know_is_refused(
        self, codec: Codec, files: Mapping[str, Path]
    ) -> None:
        params = {**codec.spec.params, "unheard_of": 1}
        with pytest.raises(ValueError, match="unheard_of"):
            load_codec(replace(codec.spec, params=params), files, "cpu")

    @pytest.mark.parametrize(
        ("height", "width"),
        [(10**9, 10**9), (10**9, 1), (1, 2**63), (0, 5), (5, 0), (-1, 4), (-(10**9), -(10**9))],
    )
    def test_a_size_that_cannot_be_is_refused_before_memory_is_taken(
        self, codec: Codec, several: list[EncodedImage], height: int, width: int
    ) -> None:
        with pytest.raises(ValueError, match="pixels"):
            codec.decode([replace(several[0], height=height, width=width)])

    @pytest.mark.parametrize("bitstream", [b"", b"\x00", b"\xff" * 7])
    def test_a_bitstream_that_is_none_is_refused(self, codec: Codec, bitstream: bytes) -> None:
        with pytest.raises(ValueError, match=r"bitstream|byte|pixels"):
            codec.decode([EncodedImage(bitstream, CAPTION, 30, 40)])

    @pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "resized", "lengthened"])
    def test_a_damaged_bitstream_is_refused_or_gives_a_picture_of_the_right_size(
        self, codec: Codec, several: list[EncodedImage], damage: str
    ) -> None:
        started = time.monotonic()
        for encoded in damaged(several, damage, self.fuzz_cases):
            with suppress(ValueError):
                assert decode_one(codec, encoded).shape == (encoded.height, encoded.width, 3)
        assert time.monotonic() - started < self.fuzz_seconds


class CodecSuite(CodecContract, ABC):
    """... and what a preset with its own weights promises besides."""

    golden_tolerance: ClassVar[int] = 1  # levels, between versions of the libraries below a codec
    colours: ClassVar[int] = 32  # levels that a picture's mean may be off

    @abstractmethod
    def exact(self, codec: Codec, encoded: EncodedImage) -> bytes:
        """What of a bitstream must decode to the same bytes everywhere and for ever: symbols, planes."""

    def more_golden(self) -> dict[str, Pixels]:
        """Pictures that are kept as golden files beside those of tests/make_golden.py."""
        return {}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_picture_of_any_kind_comes_back_nearly_in_its_colours(self, codec: Codec, kind: str) -> None:
        pixels_hwc = KINDS[kind](49, 83)
        decoded = decode_one(codec, encode_one(codec, pixels_hwc))
        assert decoded.shape == (49, 83, 3)
        assert np.abs(decoded.mean(axis=(0, 1)) - pixels_hwc.mean(axis=(0, 1))).max() < self.colours

    def test_photographs_take_about_as_many_bytes_as_the_preset_says(
        self, codec: Codec, asked: Preset
    ) -> None:
        encoded = codec.encode([Picture(pixels_hwc, CAPTION) for pixels_hwc in photographs()])
        found = np.mean([8 * len(image.bitstream) / (image.height * image.width) for image in encoded])
        assert 0.5 < found / asked.bpp < 2

    def test_what_earlier_versions_wrote_is_decoded_as_they_did(self, codec: Codec) -> None:
        for golden in read_golden(codec.spec):
            assert sha256(self.exact(codec, golden.encoded)) == golden.exact_sha256, golden.name
            assert apart(decode_one(codec, golden.encoded), golden.pixels_hwc) <= self.golden_tolerance


def damaged(several: Sequence[EncodedImage], damage: str, count: int) -> Iterator[EncodedImage]:
    """Seeded cases of one kind of damage."""
    numbers = np.random.default_rng(sum(damage.encode()))
    for case in range(count):
        image = several[case % len(several)]
        bitstream = bytearray(image.bitstream)
        if damage == "garbage":
            bitstream = bytearray(numbers.bytes(int(numbers.integers(0, 200))))
        elif damage == "truncated":
            del bitstream[int(numbers.integers(0, len(bitstream))) :]
        elif damage == "flipped":
            for bit in numbers.integers(0, 8 * len(bitstream), numbers.integers(1, 4)):
                bitstream[bit // 8] ^= 1 << bit % 8
        elif damage == "resized":
            image = replace(image, height=int(numbers.integers(1, 300)), width=int(numbers.integers(1, 300)))
        elif damage == "lengthened":
            bitstream += numbers.bytes(int(numbers.integers(1, 50)))
        yield replace(image, bitstream=bytes(bitstream))


def write_encoded(file: Path, several: Sequence[EncodedImage]) -> None:
    """For `main`, which adds the decoded pictures."""
    arrays = {
        f"bitstream{place}": np.frombuffer(image.bitstream, np.uint8) for place, image in enumerate(several)
    }
    sizes = np.array([(image.height, image.width) for image in several])
    np.savez(file, allow_pickle=False, sizes=sizes, **arrays)


def main() -> None:
    spec, file, *weights = sys.argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # some libraries count cores, not OMP_NUM_THREADS
    with np.load(file) as arrays:
        several = [
            EncodedImage(arrays[f"bitstream{place}"].tobytes(), CAPTION, int(height), int(width))
            for place, (height, width) in enumerate(arrays["sizes"])
        ]
    files = {sha256(Path(name).read_bytes()): Path(name) for name in weights}
    codec = load_codec(CodecSpec.from_json(Path(spec).read_bytes()), files, "cpu")
    decoded = {f"decoded{place}": pixels for place, pixels in enumerate(codec.decode(several))}
    np.savez(file, allow_pickle=False, **decoded)


if __name__ == "__main__":
    main()
