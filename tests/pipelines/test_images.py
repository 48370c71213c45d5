import contextlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.codec import Pixels
from pipelines.images import (
    BAND,
    DAMAGED,
    EMPTY,
    NOT_AN_IMAGE,
    TOO_LARGE,
    UNSUPPORTED,
    UnreadableImage,
    read_image,
)

COLOURS: Pixels = np.array(  # 2 high, 3 wide
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [200, 210, 220]]], dtype=np.uint8
)
PHOTO: Pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def file_of(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def frames_of(format: str, count: int) -> bytes:
    first, *others = [Image.new("RGB", (4, 4), (60 * place, 0, 0)) for place in range(count)]
    return file_of(first, format, save_all=True, append_images=others)


def png(width: int, height: int, bits: int, colour_type: int, raw: bytes) -> bytes:
    """A PNG made by hand: colour type 0 is grey, 2 RGB; `raw` includes the filter byte of each line."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return (
            struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pixels_of(content: bytes) -> list[list[list[int]]]:
    found: list[list[list[int]]] = read_image(content).pixels_hwc.tolist()
    return found


def refusal(content: bytes, max_pixels: int = 1_000_000) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(content, max_pixels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plain_picture_comes_back_without_notes() -> None:
    found = read_image(file_of(Image.fromarray(COLOURS)))
    assert found.pixels_hwc.dtype == np.uint8
    assert found.pixels_hwc.tolist() == COLOURS.tolist()
    assert found.notes is None


def test_grey_becomes_three_equal_channels() -> None:
    found = read_image(file_of(Image.new("L", (2, 1), 77)))
    assert found.pixels_hwc.tolist() == [[[77, 77, 77], [77, 77, 77]]]
    assert found.notes is None


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels_of(file_of(image)) == [[[0, 0, 0], [255, 255, 255]]]


def test_a_palette_becomes_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 250, 240, 230])
    image.putpixel((1, 0), 1)
    assert pixels_of(file_of(image)) == [[[1, 2, 3], [250, 240, 230]]]


def test_alpha_is_flattened_on_white_and_noted() -> None:
    # 0 at alpha 51 of 255, a fifth, on white: 255 * 4/5 = 204.  100: 100/5 + 204 = 224.
    found = read_image(file_of(Image.new("RGBA", (1, 1), (0, 100, 255, 51))))
    assert found.pixels_hwc.tolist() == [[[204, 224, 255]]]
    assert found.notes == "alpha flattened on white"


def test_opaque_alpha_loses_nothing_and_is_not_noted() -> None:
    found = read_image(file_of(Image.new("RGBA", (1, 1), (9, 8, 7, 255))))
    assert found.pixels_hwc.tolist() == [[[9, 8, 7]]]
    assert found.notes is None


def test_grey_with_alpha_is_flattened() -> None:
    found = read_image(file_of(Image.new("LA", (1, 1), (0, 51))))
    assert found.pixels_hwc.tolist() == [[[204, 204, 204]]]
    assert found.notes == "alpha flattened on white"


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_transparent_palette_entry_becomes_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 0, 0, 0])
    image.putpixel((1, 0), 1)
    found = read_image(file_of(image, transparency=transparency))
    assert found.pixels_hwc.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    assert found.notes == "alpha flattened on white"


def test_a_transparent_colour_becomes_white() -> None:
    found = read_image(file_of(Image.fromarray(COLOURS), transparency=(0, 255, 0)))
    assert found.pixels_hwc[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    assert found.notes == "alpha flattened on white"


@pytest.mark.parametrize("orientation", [*range(1, 9), 77])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    upright = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, -1),  # the camera was turned left: clockwise
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True, "exact": True} if format == "WEBP" else {}
    found = read_image(file_of(Image.fromarray(COLOURS), format, exif=exif, **options))
    assert found.pixels_hwc.tolist() == upright.get(orientation, COLOURS).tolist()
    assert found.notes is None


@pytest.mark.parametrize(
    "exif", [b"garbage", b"Exif\x00\x00MM\x00*\x00\x00\xff\xff", b"Exif\x00\x00II*\x00\x08"]
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_does_not_lose_a_whole_picture(format: str, exif: bytes) -> None:
    found = read_image(file_of(Image.fromarray(PHOTO), format, exif=exif))
    assert found.pixels_hwc.shape == PHOTO.shape


def test_cmyk_without_a_profile_is_converted_and_noted() -> None:
    # Cyan alone takes away red, black alone takes away all.
    cmyk = np.array([[[255, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], dtype=np.uint8)
    found = read_image(file_of(Image.fromarray(cmyk, "CMYK"), "TIFF"))
    assert found.pixels_hwc.tolist() == [[[0, 255, 255], [0, 0, 0], [255, 255, 255]]]
    assert found.notes == "CMYK without a profile converted to sRGB"


def test_a_cmyk_jpeg_is_converted() -> None:
    found = read_image(file_of(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"))
    assert np.abs(found.pixels_hwc.astype(int) - [0, 255, 255]).max() <= 2


def test_lab_is_converted() -> None:
    # L* 100 and 0 of neutral a and b: white and black.
    lab = Image.merge("LAB", [Image.new("L", (1, 1), 255), *[Image.new("L", (1, 1), 128)] * 2])
    found = read_image(file_of(lab, "TIFF"))
    assert np.abs(found.pixels_hwc.astype(int) - 255).max() <= 2
    assert found.notes == "LAB converted to sRGB"


def test_a_profile_that_means_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = read_image(file_of(Image.fromarray(COLOURS), icc_profile=profile))
    assert found.pixels_hwc.tolist() == COLOURS.tolist()
    assert found.notes is None


def test_another_profile_is_converted_to_srgb_and_noted() -> None:
    # sRGB's own profile with the tags of red and green swapped: what the file calls red is green.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    found = read_image(file_of(Image.new("RGB", (1, 1), (255, 0, 0)), icc_profile=swapped))
    assert np.abs(found.pixels_hwc[0, 0].astype(int) - [0, 255, 0]).max() <= 3
    assert found.notes == "ICC profile converted to sRGB"


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_a_grey_or_indexed_picture_with_an_rgb_profile_is_read(mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (1, 1), (80, 80, 80)).convert(mode, palette=Image.Palette.ADAPTIVE)
    found = read_image(file_of(image, icc_profile=profile))
    assert found.pixels_hwc.tolist() == [[[80, 80, 80]]]


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of greys, made by hand: white D50, and the exponent of its curve."""
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"kTRC", 156 + len(white), len(curve))
    size = 156 + len(white) + len(curve)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"mntr", b"GRAY", b"XYZ ").ljust(36, b"\0")
    header += b"acsp" + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + tags + white + curve


@pytest.mark.parametrize("mode", ["L", "LA", "P"])
def test_a_grey_profile_counts_in_every_mode(mode: str) -> None:
    # Linear light: 64 of 255 is a quarter, which sRGB writes as 137.
    image = Image.new("L", (1, 1), 64).convert(mode)
    found = read_image(file_of(image, icc_profile=grey_profile(1.0)))
    assert np.abs(found.pixels_hwc[0, 0].astype(int) - 137).max() <= 1
    assert found.notes == "ICC profile converted to sRGB"


def test_a_grey_profile_of_colours_is_unusable() -> None:
    found = read_image(file_of(Image.fromarray(COLOURS), icc_profile=grey_profile(1.0)))
    assert found.pixels_hwc.tolist() == COLOURS.tolist()
    assert found.notes == "ICC profile unusable, taken as sRGB"


@pytest.mark.parametrize("profile", [b"not a profile", b"\x00" * 200])
def test_a_broken_profile_is_noted_and_the_pixels_kept(profile: bytes) -> None:
    found = read_image(file_of(Image.fromarray(COLOURS), icc_profile=profile))
    assert found.pixels_hwc.tolist() == COLOURS.tolist()
    assert found.notes == "ICC profile unusable, taken as sRGB"


def test_sixteen_bit_grey_is_reduced_and_noted() -> None:
    levels = struct.pack(">HHH", 0, 100 * 257, 65535)
    found = read_image(png(3, 1, 16, 0, b"\x00" + levels))
    assert found.pixels_hwc[0, :, 0].tolist() == [0, 100, 255]
    assert found.notes == "16 bits a channel reduced to 8"


def test_a_sixteen_bit_colour_png_is_noted() -> None:
    levels = struct.pack(">HHH", 10 * 257, 100 * 257, 65535)
    found = read_image(png(1, 1, 16, 2, b"\x00" + levels))
    assert found.pixels_hwc.tolist() == [[[10, 100, 255]]]
    assert found.notes == "16 bits a channel reduced to 8"


@pytest.mark.parametrize(
    ("levels", "expected", "notes"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255], "floats 0..1 reduced to 8 bits"),
        ([0.0, 20.0, 255.0], [0, 20, 255], "floats 0..255 reduced to 8 bits"),
        ([-1.0, 0.0, 4.0], [0, 51, 255], "levels -1 to 4 stretched to 8 bits"),
        ([float("nan"), 0.2, float("inf")], [0, 51, 0], "floats 0..1 reduced to 8 bits"),
    ],
)
def test_floats_are_reduced_and_noted(levels: Sequence[float], expected: list[int], notes: str) -> None:
    found = read_image(file_of(Image.fromarray(np.array([levels], dtype=np.float32)), "TIFF"))
    assert found.pixels_hwc[0, :, 1].tolist() == expected
    assert found.notes == notes


def test_thirty_two_bit_levels_are_stretched_and_noted() -> None:
    found = read_image(file_of(Image.fromarray(np.array([[0, 200_000, 1_000_000]], np.int32)), "TIFF"))
    assert found.pixels_hwc[0, :, 2].tolist() == [0, 51, 255]
    assert found.notes == "levels 0 to 1e+06 stretched to 8 bits"


def test_thirty_two_bit_integers_that_fit_eight_keep_their_levels() -> None:
    found = read_image(file_of(Image.fromarray(np.array([[0, 77, 255]], np.int32)), "TIFF"))
    assert found.pixels_hwc[0, :, 1].tolist() == [0, 77, 255]
    assert found.notes == "32-bit integers 0..255 reduced to 8 bits"


def test_dark_sixteen_bit_levels_stay_dark() -> None:
    found = read_image(file_of(Image.fromarray(np.array([[0, 77, 255]], np.uint16)), "TIFF"))
    assert found.pixels_hwc[0, :, 1].tolist() == [0, 0, 1]
    assert found.notes == "16 bits a channel reduced to 8"


@pytest.mark.parametrize("height", [1, BAND - 1, BAND, BAND + 1, 2 * BAND, 2 * BAND + 3])
@pytest.mark.parametrize("kind", ["uint16", "big-endian", "int32", "float32"])
def test_tall_greys_are_reduced_row_by_row(height: int, kind: str) -> None:
    levels = np.random.default_rng(2).integers(0, 65536, (height, 5))
    levels[0, :2] = levels[-1, :2] = 0, 65535  # extremes in the first band, or the last alone
    levels[: height // 2, :2] = 7
    expected = levels / 257
    if kind == "big-endian":
        content = png(5, height, 16, 0, b"".join(b"\0" + row.tobytes() for row in levels.astype(">u2")))
    elif kind == "uint16":
        content = file_of(Image.fromarray(levels.astype(np.uint16)), "TIFF")
    else:
        spread = levels.astype(kind) * 100 - 70_000
        low, high = float(spread.min()), float(spread.max())
        expected = (spread.astype(np.float64) - low) * (255 / (high - low))
        content = file_of(Image.fromarray(spread), "TIFF")
    found = read_image(content).pixels_hwc
    assert found.shape == (height, 5, 3)
    assert np.array_equal(found[..., 0], np.rint(expected))


def test_tall_greys_take_little_memory() -> None:
    """Doubles of all of them, some at a time, were 16 times the picture."""
    content = file_of(Image.fromarray(np.full((8000, 500), 300, np.uint16)), "TIFF")
    tracemalloc.start()
    read_image(content, max_pixels=4_000_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40_000_000


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_the_first_of_many_frames_is_taken_and_noted(format: str) -> None:
    found = read_image(frames_of(format, 3))
    assert found.pixels_hwc.shape == (4, 4, 3)
    assert found.pixels_hwc.max() <= 3  # black, within what lossy formats make of it
    assert found.notes == "first of 3 frames"


def test_notes_are_joined_in_a_fixed_order() -> None:
    frames = [Image.new("RGBA", (2, 2), (place, 0, 0, 0)) for place in (0, 255)]
    found = read_image(file_of(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert found.notes == "first of 2 frames; alpha flattened on white"


def test_an_empty_file_is_refused() -> None:
    assert refusal(b"") == f"{EMPTY}: 0 bytes"


@pytest.mark.parametrize("content", [b"Dear diary,\ntoday I took no pictures.\n" * 50, b"\x00" * 999, b"x"])
def test_a_file_that_is_no_image_is_refused(content: bytes) -> None:
    assert refusal(content).startswith(f"{NOT_AN_IMAGE}: ")


def test_postscript_is_refused_and_not_run() -> None:
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == f"{UNSUPPORTED}: EPS"


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000", "TGA"]
)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_truncated_file_is_refused(format: str, kept: float) -> None:
    content = file_of(Image.fromarray(PHOTO), format)
    assert refusal(content[: int(len(content) * kept)]).startswith((f"{DAMAGED}: ", f"{NOT_AN_IMAGE}: "))


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = png(60_000, 60_000, 8, 2, b"")
    assert refusal(bomb) == f"{TOO_LARGE}: 60000 x 60000 pixels, the limit is 1,000,000"


def test_the_size_limit_is_the_callers() -> None:
    content = file_of(Image.fromarray(COLOURS))
    assert read_image(content, max_pixels=6).pixels_hwc.shape == (2, 3, 3)
    assert refusal(content, max_pixels=5).startswith(f"{TOO_LARGE}: 3 x 2 pixels")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "AVIF", "BMP", "GIF"])
def test_pillows_own_size_limit_is_not_relied_on(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of(Image.fromarray(PHOTO), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert read_image(content).pixels_hwc.shape == PHOTO.shape


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "ICO", "JPEG2000"])
def test_a_damaged_file_is_refused_or_read_but_never_crashes(format: str) -> None:
    whole = file_of(Image.fromarray(PHOTO), format)
    numbers = np.random.default_rng(7)
    for _ in range(40):
        content = bytearray(whole)
        for place in numbers.integers(0, len(content), 8):
            content[place] = numbers.integers(0, 256)
        with contextlib.suppress(UnreadableImage):
            assert read_image(bytes(content), max_pixels=1_000_000).pixels_hwc.shape[2] == 3
