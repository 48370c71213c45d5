"""Coarse pictures: of codecs that draw on one, and as files that say so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.codecs.coarse import load_coarse
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from pipelines.images import read_provenance
from pipelines.provenance import CONVENTIONAL, to_xmp
from tests.codec_suite import apart, decode_one, encode_one, load_preset
from tests.command_line import run, succeed
from tests.samples import photo, photograph
from tests.tiny_sprdiff import tiny_codec, tiny_weights


def test_sprdiff_shows_what_guides_its_denoiser(tmp_path: Path) -> None:
    weights = tiny_weights(tmp_path)
    codec = tiny_codec(weights)
    encoded = encode_one(codec, photo(70, 90))
    coarse = load_coarse(codec.spec, weights, "cpu")
    assert encode_one(coarse, photo(70, 90)) == encoded
    found = decode_one(coarse, encoded)
    assert apart(found, codec.decode_coarse([encoded])[0]) == 0
    assert apart(found, decode_one(codec, encoded)) > 8


def test_layered_shows_its_base() -> None:
    preset = find_preset("layered-0.03")
    coarse = load_coarse(preset.spec, shipped_weights(), "cpu")
    original = photo(121, 150)
    encoded = encode_one(coarse, original)
    found = decode_one(coarse, encoded)
    assert found.shape == original.shape
    assert np.abs(found.astype(int) - original).mean() < 16
    full = decode_one(load_preset("layered-0.03"), encoded)
    assert apart(found, full) > 20
    sharp = [float(np.abs(np.diff(picture.astype(int), axis=1)).mean()) for picture in (found, full)]
    assert sharp[0] < sharp[1]


def test_a_codec_without_coarse_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="codec avif has no coarse pictures"):
        load_coarse(find_preset("avif-0.1").spec, {}, "cpu")


def test_restored_coarse_pictures_say_that_they_are(tmp_path: Path) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    source.mkdir()
    Image.fromarray(photograph("chelsea")[:120, :160]).save(source / "cat.png")
    succeed("encode", source, archive, "--codec", "layered-0.012", "--workers", 0)
    full, coarse = tmp_path / "full", tmp_path / "coarse"
    succeed("restore", archive, full)
    succeed("restore", archive, coarse, "--decode", "coarse")
    files = [(folder / "cat.png").read_bytes() for folder in (full, coarse)]
    told = [read_provenance(content) for content in files]
    assert told[0] is not None
    assert told[1] is not None
    assert (told[0].codec, told[0].generative) == ("layered", True)
    assert (told[1].codec, told[1].generative) == ("layered, its coarse picture", False)
    assert CONVENTIONAL.encode() in to_xmp(told[1])
    with Image.open(full / "cat.png") as first, Image.open(coarse / "cat.png") as second:
        assert first.size == second.size == (160, 120)
        assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).max() > 8


def test_a_key_whose_codec_has_none_is_named(tmp_path: Path) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    source.mkdir()
    Image.fromarray(photograph("chelsea")[:40, :40]).save(source / "cat.png")
    succeed("encode", source, archive, "--codec", "avif-0.1", "--workers", 0)
    result = run("restore", archive, tmp_path / "out", "--decode", "coarse")
    assert result.exit_code == 1
    assert "cat.png: no codec for spec" in result.stderr
    assert "codec avif has no coarse pictures" in result.stderr
