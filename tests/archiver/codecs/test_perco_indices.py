import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from archiver.codecs.perco_indices import (
    NEIGHBOURS,
    RUN,
    TOTAL,
    IndexCoder,
    IndexModel,
    digits_bytes,
    fit_model,
    load_indices,
    pack_digits,
    unpack_digits,
)
from tests.samples import photographs

CODES = 64


def smooth(pixels_hwc: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Indices that follow on each other as those of photographs do: colours, in 64 kinds."""
    small = np.asarray(Image.fromarray(pixels_hwc).resize((40, 30))).astype(np.int64)
    indices: NDArray[np.int64] = small[..., 0] // 64 * 16 + small[..., 1] // 64 * 4 + small[..., 2] // 64
    return indices


@pytest.fixture(scope="module")
def maps() -> list[NDArray[np.int64]]:
    return [smooth(pixels_hwc[:, ::step]) for pixels_hwc in photographs() for step in (1, -1)]


@pytest.fixture(scope="module")
def model(maps: list[NDArray[np.int64]]) -> IndexModel:
    return fit_model(maps, CODES, steps=120)


@pytest.fixture(scope="module")
def coder(model: IndexModel) -> IndexCoder:
    return load_indices(model)


def test_digits_are_one_number() -> None:
    assert pack_digits(np.array([1, 2, 3]), 10) == b"\x00\x7b"
    assert pack_digits(np.array([255, 0, 7]), 256) == b"\xff\x00\x07"
    assert pack_digits(np.array([], dtype=np.int64), 10) == b""


@pytest.mark.parametrize("codes", [2, 10, 64, 256, 1024, 8196])
@pytest.mark.parametrize("count", [0, 1, 7, 64, RUN, RUN + 1, 2 * RUN + 500])
def test_unpacking_inverts_packing_in_as_many_bytes_as_the_largest_number_needs(
    codes: int, count: int
) -> None:
    indices = np.random.default_rng(count).integers(0, codes, count)
    packed = pack_digits(indices, codes)
    assert np.array_equal(unpack_digits(packed, count, codes), indices)
    assert len(packed) == digits_bytes(count, codes)
    assert count * np.log2(codes) <= 8 * len(packed) + 1e-6 < count * np.log2(codes) + 8 * (count / RUN + 1)


def test_bytes_that_no_indices_have_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes, expected 2 for 3 indices of 10 codes"):
        unpack_digits(b"\x00\x00\x7b", 3, 10)
    with pytest.raises(ValueError, match="no indices of 10 codes"):
        unpack_digits(b"\x03\xe8", 3, 10)  # 1000


def test_a_model_saves_what_neighbours_tell(maps: list[NDArray[np.int64]], coder: IndexCoder) -> None:
    for indices in maps:
        packed = coder.encode(indices)
        assert np.array_equal(coder.decode(packed, *indices.shape), indices)
        assert len(packed) < 0.7 * digits_bytes(indices.size, CODES)
        assert 8 * len(packed) < coder.bits(indices) + 64


@pytest.mark.parametrize(("y", "x"), [(1, 1), (1, 9), (9, 1), (2, 3), (5, 70)])
@pytest.mark.parametrize("seed", range(3))
def test_indices_of_any_shape_come_back_however_unlikely(
    coder: IndexCoder, y: int, x: int, seed: int
) -> None:
    indices = np.random.default_rng(seed).integers(0, CODES, (y, x))
    assert np.array_equal(coder.decode(coder.encode(indices), y, x), indices)
    same = np.full((y, x), seed * 30)
    assert np.array_equal(coder.decode(coder.encode(same), y, x), same)


def test_each_picture_has_one_bitstream(coder: IndexCoder, maps: list[NDArray[np.int64]]) -> None:
    packed = coder.encode(maps[0])
    for other in (packed + b"\x00", packed + b"\xff", packed[:-1], packed[:-1] + bytes([packed[-1] ^ 1])):
        try:
            found = coder.decode(other, *maps[0].shape)
        except ValueError:
            continue
        assert coder.encode(found) == other


def test_counts_are_whole_numbers_that_make_up_the_total(coder: IndexCoder) -> None:
    near = np.random.default_rng(1).integers(0, CODES + 1, (200, len(NEIGHBOURS)))
    counts = coder.counts(near)
    assert counts.dtype == np.int64
    assert counts.min() >= 1
    assert (counts.sum(1) == TOTAL).all()
    # One cell at a time gives what all give together: no sum depends on its order.
    assert np.array_equal(np.concatenate([coder.counts(one[None]) for one in near]), counts)


def test_what_the_weights_file_keeps_is_whole(model: IndexModel) -> None:
    assert all(not value.is_floating_point() for value in model.state_dict().values())


def test_tables_that_are_none_are_refused(model: IndexModel) -> None:
    broken = IndexModel(CODES)
    broken.load_state_dict(model.state_dict())
    broken.powers[3] = 1 << 25
    with pytest.raises(ValueError, match="powers"):
        load_indices(broken)
    broken.load_state_dict(model.state_dict())
    broken.base.fill_(-(1 << 30))
    with pytest.raises(ValueError, match="logit"):
        load_indices(broken)


def test_an_untrained_model_codes_uniformly() -> None:
    coder = load_indices(IndexModel(CODES))
    indices = torch.randint(0, CODES, (20, 20), generator=torch.Generator().manual_seed(0)).numpy()
    assert coder.bits(indices) == pytest.approx(400 * 6, rel=1e-3)
    assert np.array_equal(coder.decode(coder.encode(indices), 20, 20), indices)
