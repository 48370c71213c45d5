import numpy as np
import pytest

from archiver.codecs import load_codec
from archiver.codecs.avif import avif_spec
from archiver.evaluation.artefacts import LIMITS, artefacts, exceeded
from pipelines.codec import Picture, Pixels
from tests.samples import KINDS, photograph, photographs


def changed(original: Pixels, levels: np.ndarray) -> Pixels:
    """The picture with `levels`, (H, W) or (H, W, 3), added."""
    added = levels if levels.ndim == 3 else levels[..., None]
    levels_hwc: Pixels = np.clip(np.rint(original + added), 0, 255).astype(np.uint8)
    return levels_hwc


def softened(original: Pixels) -> Pixels:
    """What a codec leaves of it."""
    codec = load_codec(avif_spec(2, 30), {}, "cpu")
    return codec.decode(codec.encode([Picture(original, None)]))[0]


def wave(shape: tuple[int, ...], period: int, amplitude: float) -> np.ndarray:
    waves: np.ndarray = amplitude * np.cos(2 * np.pi * np.indices(shape[:2])[1] / period)
    return waves


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_avif_shows_none_of_them(scale: int) -> None:
    codec = load_codec(avif_spec(scale, 30), {}, "cpu")
    for original in photographs():
        (decoded,) = codec.decode(codec.encode([Picture(original, None)]))
        assert exceeded(artefacts(original, decoded)) == []


@pytest.mark.parametrize("period", [2, 4, 8, 16])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_at_a_stride_is_measured_in_levels(period: int, axis: int) -> None:
    original = photograph("coffee")
    levels = wave(original.shape if axis else original.shape[1::-1], period, 3.0)
    found = artefacts(original, changed(original, levels if axis else levels.T))
    assert 2.0 < found.grid < 3.3  # what the picture itself has nearby is taken off
    assert "grid" in exceeded(found)


def test_the_grid_of_a_pixel_shuffle_is_seen_through_the_blur_of_a_codec() -> None:
    """Each of 4 x 4 phases with its own offset, only in one half of the picture."""
    original = photograph("astronaut")
    offsets = np.random.default_rng(2).normal(0, 2.5, (4, 4))
    grid = np.tile(offsets, (128, 128))
    grid[:, 256:] = 0
    assert "grid" in exceeded(artefacts(original, changed(softened(original), grid)))


def test_the_originals_own_grid_is_no_artefact() -> None:
    original = changed(photograph("coffee"), wave((400, 600), 4, 12))
    assert artefacts(original, softened(original)).grid < LIMITS.grid
    squares = KINDS["checkerboard"](256, 256)
    assert artefacts(squares, squares).grid == 0


def test_a_shift_of_one_colour() -> None:
    original = photograph("coffee")
    tinted = changed(original, np.broadcast_to([0.0, 0.0, 5.0], original.shape))
    found = artefacts(original, tinted)
    assert found.colour == pytest.approx(5, abs=0.5)
    assert exceeded(found) == ["colour"]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_between_tiles(axis: int) -> None:
    original = photograph("astronaut")
    step = np.zeros(original.shape[:2])
    (step if axis == 0 else step.T)[256:] = 8
    found = artefacts(original, changed(softened(original), step - 4))
    assert "seam" in exceeded(found)
    assert exceeded(artefacts(original, softened(original))) == []


def test_a_step_in_the_original_is_no_seam() -> None:
    original = KINDS["saturated"](256, 256)
    assert artefacts(original, softened(original)).seam < LIMITS.seam


def test_a_frame_along_the_border() -> None:
    original = photograph("coffee")
    frame = np.full(original.shape[:2], 25.0)
    frame[10:-10, 10:-10] = 0
    assert "border" in exceeded(artefacts(original, changed(softened(original), frame)))


def test_a_spot_that_ran_into_white() -> None:
    original = photograph("coffee")
    spot = np.zeros(original.shape[:2])
    spot[64:96, 64:96] = 500
    found = artefacts(original, changed(original, spot))
    assert found.blow_up > 0.9
    assert exceeded(found) == ["blow_up"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 97), (17, 31), (200, 3), (160, 230)])
def test_a_picture_beside_itself_shows_none(kind: str, size: tuple[int, int]) -> None:
    original = KINDS[kind](*size)
    found = artefacts(original, original)
    assert exceeded(found) == []
    assert np.isfinite(list(vars(found).values())).all()


def test_pictures_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        artefacts(KINDS["photo"](4, 5), KINDS["photo"](5, 4))
