"""Image files <-> pixels."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pipelines.codec import Pixels
from pipelines.provenance import Provenance, from_xmp, plain, to_xmp

__all__ = [
    "Format",
    "Provenance",
    "SourceImage",
    "UnreadableImage",
    "read_image",
    "read_provenance",
    "write_image",
]

# The stable words that a failure begins with; after them comes ": detail".
EMPTY = "empty file"
NOT_AN_IMAGE = "not an image"
UNSUPPORTED = "unsupported image"
TOO_LARGE = "too large"
DAMAGED = "damaged image"

MAX_PIXELS = 250_000_000
BAND = 256  # rows
NEVER_OPENED = ("EPS",)  # Pillow would run Ghostscript on it
# What Pillow's plugins were seen to raise on damaged files.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError,
    AssertionError, RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Format = Literal["png", "jpeg", "webp", "avif"]
LONGEST_SIDE: dict[Format, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383, "avif": 32_768}  # pixels


class UnreadableImage(ValueError):
    """One line: stable words of this module, then ": detail"."""


@dataclass(frozen=True)
class SourceImage:
    """Pixels as a codec wants them, and what was lost on the way."""

    pixels_hwc: Pixels
    notes: str | None


def read_image(content: bytes, max_pixels: int = MAX_PIXELS) -> SourceImage:
    """The first frame, upright, in sRGB, on white; a file that is not whole is refused.

    `notes` names what the pixels no longer say: "first of 12 frames; alpha flattened on white". Turning an
    image upright and dropping an opaque alpha channel or a profile that means sRGB lose nothing: no note.
    """
    if not content:
        raise UnreadableImage(f"{EMPTY}: 0 bytes")
    # Pillow warns of metadata that it cannot read and of large images: pixels count, and we bound sizes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(content)
        width, height = image.size
        if width < 1 or height < 1:
            raise UnreadableImage(f"{DAMAGED}: {width} x {height} pixels")
        if width * height > max_pixels:
            raise UnreadableImage(f"{TOO_LARGE}: {width} x {height} pixels, the limit is {max_pixels:,}")
        try:
            return _pixels_and_notes(image, content)
        except Image.DecompressionBombError as error:
            raise UnreadableImage(f"{TOO_LARGE}: {image.format}, {_one_line(error)}") from error
        except DAMAGE as error:
            raise UnreadableImage(f"{DAMAGED}: {image.format}, {_one_line(error)}") from error


def _opened(content: bytes) -> Image.Image:
    """Headers read, pixels not.

    Not `Image.open`: its size limit is a global of Pillow's, and lower than the largest phone pictures.
    """
    Image.init()
    claimed: tuple[str, str] | None = None  # the format that the file begins like, and what is wrong with it
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        accepted = None
        try:
            accepted = accept(content[:16]) if accept else True
            if isinstance(accepted, str) or (accepted and name in NEVER_OPENED):
                raise UnreadableImage(f"{UNSUPPORTED}: {name}")
            if accepted:
                return factory(io.BytesIO(content), "")
        except UnreadableImage:
            raise
        except Image.DecompressionBombError as error:  # WebP and TIFF do rely on Pillow's limit
            raise UnreadableImage(f"{TOO_LARGE}: {name}, {_one_line(error)}") from error
        except DAMAGE as error:
            if accept and accepted and claimed is None:
                claimed = name, _one_line(error)
    if claimed is None:
        raise UnreadableImage(f"{NOT_AN_IMAGE}: {len(content):,} bytes of no known format")
    raise UnreadableImage(f"{DAMAGED}: {claimed[0]}, {claimed[1]}")


def _pixels_and_notes(image: Image.Image, content: bytes) -> SourceImage:
    bits = _bits_a_channel(image, content)  # loading forgets them
    image.load()
    orientation = _orientation(image)
    profile = image.info.get("icc_profile")
    eight_bit, reduction = _to_eight_bits(image, bits)
    colour, alpha = _split_alpha(eight_bit)
    rgb, conversion = _to_srgb(colour, profile)
    flattened = None
    if alpha is not None and alpha.getextrema()[0] < 255:  # type: ignore[operator]
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        flattened = "alpha flattened on white"
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    pixels_hwc = np.array(rgb, dtype=np.uint8)
    frames = getattr(image, "n_frames", 1)  # last: counting the frames of a GIF moves it on
    notes = (
        f"first of {frames} frames" if frames > 1 else None,
        reduction or (f"{bits} bits a channel reduced to 8" if bits > 8 else None),
        conversion,
        flattened,
    )
    return SourceImage(pixels_hwc, "; ".join(note for note in notes if note) or None)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DAMAGE:  # broken metadata of a whole picture
        return 1


def _bits_a_channel(image: Image.Image, content: bytes) -> int:
    """As the header of a PNG or TIFF tells; 8 for all other formats."""
    if image.format == "PNG" and content[12:16] == b"IHDR":
        return content[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    return 8


def _to_eight_bits(image: Image.Image, bits: int) -> tuple[Image.Image, str | None]:
    """16-bit, 32-bit and float greys to 8 bits; others as they are. `bits`: of a channel, as the header tells."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image, None
    extremes = [(levels.min(), levels.max()) for _, levels in _bands(image)]
    low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    zero, scale = 0.0, 1.0
    if image.mode == "I" and bits == 32 and low >= 0 and high <= 255:
        note = "32-bit integers 0..255 reduced to 8 bits"
    elif image.mode != "F" and low >= 0 and high <= 65535:
        scale, note = 1 / 257, "16 bits a channel reduced to 8"
    elif image.mode == "F" and low >= 0 and high <= 1:
        scale, note = 255.0, "floats 0..1 reduced to 8 bits"
    elif image.mode == "F" and low >= 0 and high <= 255:
        note = "floats 0..255 reduced to 8 bits"
    else:
        zero, scale = low, 255 / max(high - low, np.finfo(np.float64).tiny)
        note = f"levels {low:.6g} to {high:.6g} stretched to 8 bits"
    eight: NDArray[np.uint8] = np.empty((image.height, image.width), dtype=np.uint8)
    for top, levels in _bands(image):
        eight[top : top + BAND] = np.rint((levels - zero) * scale)
    return Image.fromarray(eight), note


def _bands(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """First row and levels of a few rows at a time, what is not finite as 0: doubles of all would fill memory."""
    for top in range(0, image.height, BAND):
        band = np.asarray(image.crop((0, top, image.width, min(top + BAND, image.height))))
        yield top, np.nan_to_num(band.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """An image in L, RGB, CMYK or LAB, and its alpha channel."""
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    return image, alpha


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    note = None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            of = source.profile.xcolor_space.strip()
            if image.mode == "L" and of == "RGB":
                image = image.convert("RGB")
            elif image.mode == "RGB" and of == "GRAY" and _grey(image):  # from a palette, or grey and alpha
                image = image.convert("L")
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
            if image.mode in ("L", "RGB") and _changes_little(transform, image.mode):
                return image.convert("RGB"), None
            converted = ImageCms.applyTransform(image, transform)
            assert converted is not None
            return converted, "ICC profile converted to sRGB"
        except (ImageCms.PyCMSError, *DAMAGE):
            note = "ICC profile unusable, taken as sRGB"
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted, note or "LAB converted to sRGB"
    if image.mode == "CMYK":
        note = note or "CMYK without a profile converted to sRGB"
    return image.convert("RGB"), note


def _grey(image: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in image.split())
    return red == green == blue


def _changes_little(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether all colours of a coarse cube, or all greys, keep within 2 levels: the profile means sRGB."""
    if mode == "L":
        probe: Pixels = np.arange(256, dtype=np.uint8).reshape(1, 256)
        before = np.stack([probe] * 3, axis=-1)
    else:
        steps = np.arange(0, 256, 51, dtype=np.uint8)
        before = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = before
    converted = ImageCms.applyTransform(Image.fromarray(probe), transform)
    return int(np.abs(np.asarray(converted).astype(int) - before.astype(int)).max()) <= 2


def write_image(pixels_hwc: Pixels, format: Format, provenance: Provenance) -> bytes:
    """An image file that says it is a reconstruction: XMP in all formats, and text chunks in PNG."""
    height, width = pixels_hwc.shape[:2]
    longest = LONGEST_SIDE[format]
    if max(height, width) > longest:
        raise ValueError(f"{width} x {height} pixels, {format} holds at most {longest:,} a side: choose png")
    image, xmp, file = Image.fromarray(pixels_hwc), to_xmp(provenance), io.BytesIO()
    match format:
        case "png":
            texts = PngInfo()
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
            texts.add_itxt("Description", plain(provenance.description))
            texts.add_text("Software", "archiver")
            image.save(file, "PNG", pnginfo=texts)
        case "jpeg":
            image.save(file, "JPEG", quality=95, subsampling="4:4:4", xmp=xmp)
        case "webp":
            image.save(file, "WEBP", quality=95, xmp=xmp)
        case "avif":
            image.save(file, "AVIF", quality=90, subsampling="4:4:4", xmp=xmp)
    return file.getvalue()


def read_provenance(content: bytes) -> Provenance | None:
    """What `write_image` wrote about an image file; None when it is not one of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = _opened(content).info
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return from_xmp(packet) if isinstance(packet, bytes) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
