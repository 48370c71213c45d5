from itertools import pairwise

import pytest
import torch
from torch import Tensor

from archiver.codecs.perco_sampling import (
    LEVELS,
    TIMES,
    Corners,
    Tiling,
    blended,
    cosine_levels,
    ramp,
    sampled,
    starts,
    times_of,
)
from archiver.codecs.perco_text import TextShape, WordEncoder, to_ids, to_list, words_in, words_of


@pytest.mark.parametrize("name", LEVELS)
def test_signal_falls_and_noise_rises(name: str) -> None:
    levels = LEVELS[name]()
    assert levels.signal.shape == levels.sigma.shape == (TIMES,)
    assert bool((levels.signal.diff() < 0).all())
    assert torch.allclose(levels.signal**2 + levels.sigma**2, torch.ones(TIMES), atol=1e-5)


def test_the_embedded_levels_end_in_noise_alone() -> None:
    levels = cosine_levels()
    assert float(levels.signal[-1]) == 0
    assert float(levels.sigma[-1]) == 1


def test_v_and_what_is_noisy_give_the_latents_back() -> None:
    levels = cosine_levels()
    latents, noise = torch.randn(2, 3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0, 500, 999])
    noisy, v = levels.noisy(latents, noise, times), levels.v(latents, noise, times)
    assert torch.allclose(levels.clean(noisy, v, times), latents, atol=1e-5)


def test_times_fall_from_the_last() -> None:
    assert times_of(4, "trailing") == [999, 749, 499, 249]
    assert times_of(1, "trailing") == [999]
    assert times_of(4, "leading") == [751, 501, 251, 1]
    with pytest.raises(ValueError, match="spacing 'middle'"):
        times_of(4, "middle")


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_network_that_knows_the_latents_is_believed(steps: int) -> None:
    """What the UNet would say if it saw the picture: v of the one latent that is right."""
    levels = cosine_levels()
    latents = torch.randn(1, 3, 20, 33, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 3, 20, 33, generator=torch.Generator().manual_seed(2))

    def velocity(noisy: Tensor, corners: Corners, time: int) -> Tensor:
        signal, sigma = levels.signal[time], levels.sigma[time]
        parts = []
        for tile, (top, left) in zip(noisy, corners, strict=True):
            right = latents[0, :, top : top + tile.shape[1], left : left + tile.shape[2]]
            # noise = (noisy - signal * latents) / sigma
            parts.append(signal * (tile - signal * right) / sigma - sigma * right)
        return torch.stack(parts)

    for tiling in (Tiling(64, 8), Tiling(16, 4)):
        found = sampled(noise, velocity, levels, times_of(steps, "trailing"), tiling)
        assert torch.allclose(found, latents, atol=2e-4)


def test_tiles_cover_all_and_overlap_by_what_they_should() -> None:
    for cells in range(1, 200):
        found = starts(cells, Tiling(24, 8))
        assert found[0] == 0
        assert max(found[-1] + 24, cells) == max(cells, 24)
        assert all(second - first <= 16 for first, second in pairwise(found))
        assert cells <= 24 or found[-1] + 24 == cells


def test_tiles_that_agree_are_what_they_agree_on() -> None:
    whole = torch.randn(2, 3, 30, 40, generator=torch.Generator().manual_seed(1))
    corners = [(top, left) for top in starts(30, Tiling(16, 4)) for left in starts(40, Tiling(16, 4))]
    tiles = torch.cat([whole[:, :, top : top + 16, left : left + 16] for top, left in corners])
    weight = ramp(16, 4)[:, None] * ramp(16, 4)[None]
    assert torch.allclose(blended(tiles, corners, weight, 30, 40), whole, atol=1e-5)


def test_weights_rise_from_the_border() -> None:
    assert ramp(8, 3).tolist() == [1, 2, 3, 3, 3, 3, 2, 1]
    assert ramp(3, 0).tolist() == [1, 1, 1]


def test_words_are_letters_in_lower_case_and_digits() -> None:
    assert words_in("It’s a CAT, no. 12: naïve!") == ["it's", "a", "cat", "no", "1", "2", "na", "ve"]


def test_captions_become_ids_that_the_weights_file_tells() -> None:
    encoder = WordEncoder(TextShape(words=2, list_bytes=5, tokens=5, channels=8, layers=1, heads=2))
    encoder.list.copy_(to_list(["a", "cat"]))
    words = words_of(encoder)
    assert words == to_ids(["a", "cat"], 5)
    assert words.filled(["A cat.", "", "the cat"]).tolist() == [
        [2, 3, 4, 0, 0],
        [2, 0, 0, 0, 0],
        [2, 1, 4, 0, 0],
    ]
    assert encoder(words.filled(["A cat."])).shape == (1, 5, 8)
    assert words.shortened("a cat, a cat (two cats).") == "a cat, a cat"
    assert words.shortened("a cat.") == "a cat."
    with pytest.raises(ValueError, match="a caption of 6 words, expected up to 4"):
        words.filled(["a cat a cat two cats"])
    encoder.list.copy_(to_list(["a", "a  "]))
    encoder.list.copy_(torch.tensor(list(b"aa\na\n"), dtype=torch.uint8))
    with pytest.raises(ValueError, match="words, expected 2"):
        words_of(encoder)
