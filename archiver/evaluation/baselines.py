"""Conventional codecs at a given number of bytes: AVIF, JPEG XL, WebP and JPEG, with and without downscaling.

For each of the sizes 1, 1/2, 1/4 and 1/8 (Lanczos, both ways) the quality is searched whose file is the largest of at
most TOLERANCE times the wanted bytes; of these four pictures the one with the lowest LPIPS (AlexNet) is the result.
What a reader could rebuild is not counted: of AVIF everything but one byte and the AV1 frame (archiver/codecs/av1.py,
as the `avif` codec stores it), of WebP the 20 bytes of its RIFF headers. JPEG XL is a bare codestream; JPEG is
progressive with optimised tables, all of it counted. AVIF has the settings of the `avif` codec.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image

from archiver.codecs.av1 import decode_still, encode_still
from archiver.codecs.avif import SPEED
from pipelines.codec import Pixels

Name = Literal["avif", "jxl", "webp", "jpeg"]
TITLES: dict[Name, str] = {"avif": "AVIF", "jxl": "JPEG XL", "webp": "WebP", "jpeg": "JPEG"}
SCALES = (1, 2, 4, 8)
TOLERANCE = 1.02
AHEAD = 3  # qualities: a file may be smaller than that of the quality below
RIFF_HEADERS = 20  # "RIFF", size, "WEBP", "VP8 ", size


@dataclass(frozen=True)
class Conventional:
    """A codec with a quality from 0 to `best`; files grow with quality, but for rare steps back."""

    name: Name
    best: int
    encode: Callable[[Image.Image, int], bytes]
    decode: Callable[[bytes, int, int], Image.Image]  # bytes, height, width
    not_counted: int = 0  # bytes


@dataclass(frozen=True)
class Match:
    """What a conventional codec makes of a picture at about the wanted bytes."""

    name: Name
    scale: int
    quality: int
    bytes: int
    over: bool  # even the smallest file is larger than wanted: not a picture at equal bytes
    decoded_hwc: Pixels


class Matcher:
    """Finds matches for one picture, and remembers the files that it tried."""

    def __init__(self, original_hwc: Pixels, distance: Callable[[Pixels, Pixels], float]) -> None:
        self._original_hwc = original_hwc
        self._distance = distance
        self._files: dict[tuple[Name, int, int], bytes] = {}

    def match(self, codec: Conventional, wanted_bytes: int, scales: Iterable[int] = SCALES) -> Match:
        """The best of the scales at `wanted_bytes`, or the smallest file of all where none is small enough."""
        limit = int(wanted_bytes * TOLERANCE)
        fitting, smallest = [], []
        for scale in scales:
            quality = self._largest(codec, scale, limit)
            if quality is None:
                smallest += [(self._bytes(codec, scale, low), scale, low) for low in range(AHEAD + 1)]
            else:
                fitting.append((self._bytes(codec, scale, quality), scale, quality))
        if not fitting:
            size, scale, quality = min(smallest)
            return Match(codec.name, scale, quality, size, True, self._decoded(codec, scale, quality))
        found = [
            Match(codec.name, scale, quality, size, False, self._decoded(codec, scale, quality))
            for size, scale, quality in fitting
        ]
        if len(found) == 1:
            return found[0]
        return min(found, key=lambda match: self._distance(self._original_hwc, match.decoded_hwc))

    def _largest(self, codec: Conventional, scale: int, limit: int) -> int | None:
        """The highest quality whose file has at most `limit` bytes, as bisection and AHEAD steps beyond find it."""

        def fits(quality: int) -> bool:
            return self._bytes(codec, scale, quality) <= limit

        low, high = -1, codec.best + 1  # low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        beyond = (quality for quality in range(min(high + AHEAD, codec.best), low, -1) if fits(quality))
        return next(beyond, low if low >= 0 else None)

    def _bytes(self, codec: Conventional, scale: int, quality: int) -> int:
        return len(self._file(codec, scale, quality)) - codec.not_counted

    def _file(self, codec: Conventional, scale: int, quality: int) -> bytes:
        known = self._files.get((codec.name, scale, quality))
        if known is None:
            known = codec.encode(self._reduced(scale), quality)
            self._files[codec.name, scale, quality] = known
        return known

    def _reduced(self, scale: int) -> Image.Image:
        height, width = self._original_hwc.shape[:2]
        image = Image.fromarray(self._original_hwc)
        return _resized(image, -(-height // scale), -(-width // scale))

    def _decoded(self, codec: Conventional, scale: int, quality: int) -> Pixels:
        height, width = self._original_hwc.shape[:2]
        small = codec.decode(self._file(codec, scale, quality), -(-height // scale), -(-width // scale))
        return np.array(_resized(small.convert("RGB"), height, width), dtype=np.uint8)


def conventional(name: Name) -> Conventional:
    """ValueError where the package that codes it is not installed."""
    match name:
        case "avif":
            return Conventional("avif", 99, _encode_avif, decode_still)
        case "jxl":
            if find_spec("imagecodecs") is None:
                raise ValueError("JPEG XL needs the package imagecodecs: pip install 'archiver[evaluation]'")
            return Conventional("jxl", 99, _encode_jxl, _decode_jxl)
        case "webp":
            return Conventional("webp", 100, _encode_webp, _decode_file, RIFF_HEADERS)
        case "jpeg":
            return Conventional("jpeg", 95, _encode_jpeg, _decode_file)


def _encode_avif(image: Image.Image, quality: int) -> bytes:
    return encode_still(image, "4:2:0", quality, SPEED)


def _encode_webp(image: Image.Image, quality: int) -> bytes:
    return _saved(image, "WEBP", quality=quality, method=6)


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    return _saved(image, "JPEG", quality=quality, optimize=True, progressive=True, subsampling="4:2:0")


def _saved(image: Image.Image, format: str, **options: int | str | bool) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _decode_file(content: bytes, height: int, width: int) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.size == (width, height)
    return image


def _encode_jxl(image: Image.Image, quality: int) -> bytes:
    import imagecodecs

    return bytes(
        imagecodecs.jpegxl_encode(
            np.asarray(image), distance=_distance_of(quality), effort=7, usecontainer=False, numthreads=1
        )
    )


def _decode_jxl(content: bytes, height: int, width: int) -> Image.Image:
    import imagecodecs

    pixels_hwc = np.asarray(imagecodecs.jpegxl_decode(content), dtype=np.uint8)
    assert pixels_hwc.shape[:2] == (height, width)
    return Image.fromarray(pixels_hwc)


def _distance_of(quality: int) -> float:
    """libjxl's own mapping of a quality to a Butteraugli distance: 100 -> 0.1, 90 -> 1, 30 -> 6.4, 0 -> 25."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
