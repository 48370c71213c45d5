"""Whole numbers in, the same whole numbers out, at about the cost that the trained network tells."""

import constriction
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from archiver.codecs.label_maps import TOTAL
from archiver.codecs.latent_codec import LatentCoder, counts_of, load_coder
from archiver.codecs.latent_model import (
    FINE,
    LARGEST,
    SCALES,
    SYMBOLS,
    ContextModel,
    Integers,
    bits_of,
    noisy,
    phases_of,
    whole,
)

SIZES = 6, 3, 2, 16  # channels, slices, rates, width


def model_and_coder(seed: int = 0) -> tuple[ContextModel, LatentCoder]:
    torch.manual_seed(seed)
    model, frozen = ContextModel(*SIZES), Integers(*SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        for layer in model.say:
            layer.get_parameter("bias")[2:].add_(SCALES / 2)
    frozen.freeze(model)
    return model.eval(), load_coder(frozen)


def symbols_of(h: int, w: int, seed: int = 0, spread: float = 2.0) -> NDArray[np.int8]:
    drawn = np.random.default_rng(seed).normal(0, spread, (SIZES[0], h, w))
    return np.clip(np.rint(drawn), -LARGEST, LARGEST).astype(np.int8)


def coded(coder: LatentCoder, symbols: NDArray[np.int8], rate: int) -> NDArray[np.uint32]:
    encoder = constriction.stream.queue.RangeEncoder()
    coder.encode(encoder, symbols, rate)
    words: NDArray[np.uint32] = encoder.get_compressed()
    return words


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 2), (2, 1), (3, 5), (17, 8)])
@pytest.mark.parametrize("rate", [0, 1])
def test_symbols_come_back(h: int, w: int, rate: int) -> None:
    _, coder = model_and_coder()
    for spread in (0.1, 2, 20):
        symbols = symbols_of(h, w, h * w, spread)
        decoder = constriction.stream.queue.RangeDecoder(coded(coder, symbols, rate))
        assert np.array_equal(coder.decode(decoder, h, w, rate), symbols)


def test_whole_numbers_cost_what_the_trained_network_tells() -> None:
    model, coder = model_and_coder()
    symbols = symbols_of(12, 10)
    for rate in (0, 1):
        with torch.no_grad():
            values = torch.from_numpy(symbols).float()[None]
            told = float(bits_of(values, *model(values, torch.tensor([rate]))).sum())
        found = coder.bits(symbols, rate)
        assert abs(found / told - 1) < 0.03
        assert 0 <= 32 * len(coded(coder, symbols, rate)) - found < 64
    assert abs(coder.bits(symbols, 0) - coder.bits(symbols, 1)) > 1


def test_a_symbol_is_told_by_what_is_decoded_before_only() -> None:
    model, _ = model_and_coder()
    phases = phases_of(6, 6)
    for channel, row, column in ((0, 2, 2), (3, 3, 3), (5, 2, 3)):
        symbols = torch.randn(1, 6, 6, 6, requires_grad=True)
        means, scales = model(symbols, torch.tensor([0]))
        (means + scales)[0, channel, row, column].backward()
        assert symbols.grad is not None
        seen = symbols.grad[0] != 0
        mine = channel // 2
        assert not seen[2 * mine + 2 :].any()  # later slices
        assert not seen[2 * mine : 2 * mine + 2, phases >= phases[row, column]].any()
        if mine:
            assert seen[: 2 * mine, row - 1 : row + 2, column - 1 : column + 2].any(0).all()


def test_phases_begin_at_the_first_cell_of_four() -> None:
    assert phases_of(3, 4).tolist() == [[0, 2, 0, 2], [2, 1, 2, 1], [0, 2, 0, 2]]


def test_counts_are_a_distribution_around_the_mean() -> None:
    _, coder = model_and_coder()
    means = np.array([0, -FINE * LARGEST, FINE * LARGEST, 12, 0])
    indices = np.array([0, 0, SCALES - 1, 3, SCALES - 1])
    counts = counts_of(means, indices, coder.table)
    assert counts.shape == (5, SYMBOLS)
    assert counts.min() >= 1
    assert np.all(counts.sum(1) == TOTAL)
    assert counts[0].argmax() == LARGEST
    assert counts[0].max() > 0.995 * TOTAL
    assert counts[1].argmax() == 0
    assert counts[2].argmax() == SYMBOLS - 1
    assert counts[3].argmax() in (LARGEST + 1, LARGEST + 2)  # 1.5: as near to both
    assert abs(int(counts[3][LARGEST + 1]) - int(counts[3][LARGEST + 2])) <= 1
    assert np.array_equal(counts[4], counts[4][::-1])


def test_sums_stay_where_float64_is_exact() -> None:
    _, coder = model_and_coder()
    most = float((1 << 15) - 1)
    see = LARGEST * most * coder.see.shape[2] + 2.0**31
    think = most * most * coder.think.shape[2] + 2.0**31
    say = FINE * (most * most * coder.say.shape[2] + 2.0**31)
    assert max(see, think, say) < 2**53


def test_a_table_that_is_none_is_refused() -> None:
    frozen = Integers(*SIZES)
    frozen.freeze(ContextModel(*SIZES))
    frozen.get_buffer("table")[3, 5] = TOTAL
    with pytest.raises(ValueError, match="a table that does not rise"):
        load_coder(frozen)


def test_rounding_has_the_slope_of_what_is_rounded() -> None:
    y = torch.tensor([-40.0, -0.6, 0.4, 3.5], requires_grad=True)
    symbols = whole(y)
    assert symbols.tolist() == [-LARGEST, -1, 0, 4]
    symbols.sum().backward()  # type: ignore[no-untyped-call]
    assert y.grad is not None
    assert y.grad.tolist() == [0, 1, 1, 1]
    assert noisy(torch.zeros(2), torch.tensor([0.0, 1.0])).tolist() == [-0.5, 0.5]


def test_bits_of_a_sure_symbol_fall_towards_none() -> None:
    zero = torch.zeros(1)
    assert float(bits_of(zero, zero, zero)) < 0.01
    assert float(bits_of(zero + 3, zero, zero)) > 10
    wide = torch.tensor([SCALES - 1.0])
    assert 4 < float(bits_of(zero, zero, wide)) < 6


def test_scale_indices_beyond_the_table_are_led_back_and_never_farther() -> None:
    """Symbols that are always 0 drove them down for ever, until layers before outgrew their 16 bits."""
    for beyond, outwards, back in ((-5.0, 0, 1), (SCALES + 5.0, LARGEST, 0)):
        model = ContextModel(*SIZES)
        for layer in model.say:
            torch.nn.init.constant_(layer.get_parameter("bias")[2:], beyond)
        slopes = []
        for symbol in (outwards, back):
            values = torch.full((1, SIZES[0], 4, 4), float(symbol))
            model.zero_grad()
            bits_of(values, *model(values, torch.tensor([0]))).mean().backward()  # type: ignore[no-untyped-call]
            found = [layer.get_parameter("bias").grad for layer in model.say]
            slopes.append([float(slope[2:].abs().max()) for slope in found if slope is not None])
        assert max(slopes[0]) == 0
        assert min(slopes[1]) > 0
