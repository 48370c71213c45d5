import subprocess
import sys

import constriction
import numpy as np
import pytest
from numpy.typing import NDArray

from archiver.codecs.label_maps import (
    TOTAL,
    LabelTables,
    decode_labels,
    encode_labels,
    fit_label_tables,
)
from archiver.codecs.symbols import (
    LEVELS,
    Tables,
    causal,
    decode_symbols,
    encode_symbols,
    fit_tables,
    ideal_bits,
)


def smooth(seed: int, height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Symbols that resemble those above and in the channel before."""
    rng = np.random.default_rng(seed)
    hills = rng.normal(size=(height, width)).cumsum(0).cumsum(1) / np.sqrt(height * width) * 3
    several = hills + rng.normal(size=(channels, height, width)) * 0.4
    levels: NDArray[np.uint8] = np.clip(np.round(several) + 2, 0, 4).astype(np.uint8)
    return levels


def tables() -> Tables:
    return fit_tables([smooth(seed, 20, 30) for seed in range(12)], near=3)


def words(symbols: NDArray[np.uint8], coded: NDArray[np.bool_], with_tables: Tables) -> NDArray[np.uint32]:
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(*_arguments(symbols, coded, with_tables))
    found: NDArray[np.uint32] = encoder.get_compressed()
    return found


def _arguments(
    symbols: NDArray[np.uint8], coded: NDArray[np.bool_], with_tables: Tables
) -> tuple[NDArray[np.int32], constriction.stream.model.Categorical, NDArray[np.float64]]:
    symbols_n, tables_n = encode_symbols(symbols, coded, with_tables)
    return symbols_n, constriction.stream.model.Categorical(perfect=False), tables_n


@pytest.mark.parametrize(("height", "width"), [(2, 2), (1, 9), (9, 1), (17, 23)])
def test_decoding_inverts_encoding(height: int, width: int) -> None:
    symbols, some = smooth(99, height, width), np.random.default_rng(3).random((height, width)) < 0.6
    for coded in (np.ones((height, width), dtype=bool), some):
        decoder = constriction.stream.queue.RangeDecoder(words(symbols, coded, tables()))
        found = decode_symbols(decoder, 3, coded, tables())
        assert np.array_equal(found[:, coded], symbols[:, coded])
        assert np.all(found[:, ~coded] == LEVELS // 2)


def test_the_first_channels_alone_need_the_first_tables_only() -> None:
    symbols, coded = smooth(99, 10, 12)[:1], np.ones((10, 12), dtype=bool)
    assert np.array_equal(
        decode_symbols(
            constriction.stream.queue.RangeDecoder(words(symbols, coded, tables())), 1, coded, tables()
        ),
        symbols,
    )


def test_pictures_that_tables_were_not_made_of_take_fewer_bits_than_without_them() -> None:
    symbols, coded = smooth(99, 30, 40), np.ones((30, 40), dtype=bool)
    symbols_n, tables_n = encode_symbols(symbols, coded, tables())
    bound = symbols.size * np.log2(LEVELS)
    assert ideal_bits(symbols_n, tables_n) < 0.8 * bound
    assert 32 * len(words(symbols, coded, tables())) < ideal_bits(symbols_n, tables_n) + 96


def test_symbols_are_visited_as_a_wave_front() -> None:
    # Two channels of 2 x 3 cells, each symbol its own; times are x + 2 y + 4 c.
    symbols = np.array([[[0, 1, 2], [3, 4, 0]], [[1, 2, 3], [4, 0, 1]]], dtype=np.uint8)
    neighbours = np.zeros((2, 1, 3), dtype=np.int16)
    neighbours[:, 0, 2] = -1  # left
    counts = np.full((2, 6, LEVELS), TOTAL // LEVELS, dtype=np.int16)
    counts[..., 0] += TOTAL - LEVELS * (TOTAL // LEVELS)
    symbols_n, _ = encode_symbols(symbols, np.ones((2, 3), dtype=bool), Tables(neighbours, counts))
    #                            0  1  2  2  3  4  4  5  6  6  7  8
    assert symbols_n.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("neighbour", [(0, 0, 0), (0, 0, 1), (0, 1, -2), (1, -1, 0), (-1, 2, 2), (0, -3, 0)])
def test_tables_that_look_ahead_or_too_far_are_refused(neighbour: tuple[int, int, int]) -> None:
    good = tables()
    assert not causal(*neighbour)
    neighbours = good.neighbours.copy()
    neighbours[1, 0] = neighbour
    with pytest.raises(ValueError, match="expected one that is decoded before"):
        Tables(neighbours, good.counts)


def test_tables_that_do_not_add_up_are_refused() -> None:
    counts = tables().counts.copy()
    counts[0, 0, 0] += 1
    with pytest.raises(ValueError, match=f"{TOTAL} together"):
        Tables(tables().neighbours, counts)


def regions(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Some boxes of labels 1 … 7 on ground that is coded."""
    rng = np.random.default_rng(seed)
    made = np.zeros((height, width), dtype=np.uint8)
    for _ in range(4):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        made[top : top + 9, left : left + 14] = rng.integers(1, 8)
    return made


def label_tables() -> LabelTables:
    return fit_label_tables([regions(seed, 30, 40) for seed in range(20)], 8)


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_label_maps_come_back_and_take_little(seed: int) -> None:
    labels = regions(seed, 32, 48)
    encoder = constriction.stream.queue.RangeEncoder()
    encode_labels(encoder, labels, label_tables())
    compressed = encoder.get_compressed()
    assert np.array_equal(
        decode_labels(constriction.stream.queue.RangeDecoder(compressed), 32, 48, label_tables()), labels
    )
    assert 32 * len(compressed) / (32 * 48 * 256) < 0.002  # bits per pixel


def test_a_label_map_of_noise_comes_back_too() -> None:
    labels = np.random.default_rng(1).integers(0, 8, (13, 9), dtype=np.uint8)
    encoder = constriction.stream.queue.RangeEncoder()
    encode_labels(encoder, labels, label_tables())
    assert np.array_equal(
        decode_labels(
            constriction.stream.queue.RangeDecoder(encoder.get_compressed()), 13, 9, label_tables()
        ),
        labels,
    )


def test_a_rank_that_points_outside_is_refused() -> None:
    ranks = label_tables().ranks.copy()
    ranks[:] = [TOTAL - 3, 1, 1, 1]  # zeros decode to "as left", and the first cell has no left
    with pytest.raises(ValueError, match="outside of the picture"):
        decode_labels(
            constriction.stream.queue.RangeDecoder(np.zeros(4, np.uint32)),
            3,
            3,
            LabelTables(ranks, label_tables().labels),
        )


def test_another_process_writes_the_same_words() -> None:
    code = (
        "import numpy as np; from tests.archiver.codecs.test_symbols import smooth, tables, words;"
        "print(words(smooth(99, 17, 23), np.ones((17, 23), bool), tables()).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == words(smooth(99, 17, 23), np.ones((17, 23), bool), tables()).tobytes().hex()
