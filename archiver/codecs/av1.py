"""AVIF still pictures <-> the one AV1 frame inside them, and one byte that says how it was coded.

    AVIF file ->[boxes]-> AV1 units ->[units]-> sequence header, frame ->[one byte]-> bitstream

The bitstream, all of it (bits counted from the least significant):

    byte 0   bits 0-1   chroma: 0 = 4:0:0 (grey), 1 = 4:2:0, 2 = 4:4:4; 3 is not used
             bit 2      use_128x128_superblock
             bit 3      enable_filter_intra
             bit 4      enable_intra_edge_filter
             bit 5      enable_cdef
             bit 6      enable_restoration
             bit 7      separate_uv_delta_q
    byte 1.. the payload of the AV1 frame unit (OBU_FRAME), without its unit header and size

All else in the sequence header is fixed: reduced still picture, 8 bits, BT.709 primaries, sRGB curve, BT.601
matrix, full range (1/13/6), no superres, no film grain, chroma position unknown, level 31 ("no limit").
Width and height are the caller's: nothing in a bitstream can make a decoder allocate a larger frame.
Names in this file are those of the AV1 specification, section 5.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from PIL import AvifImagePlugin, Image

from archiver.codecs.isobmff import primary_item, still_file

Chroma = Literal["4:0:0", "4:2:0", "4:4:4"]
CHROMAS: tuple[Chroma, ...] = ("4:0:0", "4:2:0", "4:4:4")  # index = the bitstream's number

LONGEST_SIDE = 32_768  # pixels; libavif's own limit
OBU_SEQUENCE_HEADER, OBU_TEMPORAL_DELIMITER, OBU_FRAME = 1, 2, 6
BT709, SRGB, BT601 = 1, 13, 6
ANY_LEVEL = 31


@dataclass(frozen=True)
class Header:
    """What differs from picture to picture in a sequence header; its fields, but for chroma, are AV1's."""

    width: int  # pixels
    height: int
    chroma: Chroma
    use_128x128_superblock: bool
    enable_filter_intra: bool
    enable_intra_edge_filter: bool
    enable_cdef: bool
    enable_restoration: bool
    separate_uv_delta_q: bool


def encode_still(
    image: Image.Image,
    chroma: Chroma,
    quality: int,
    speed: int,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """An image in L or RGB -> bitstream, checked to decode to the pixels of the encoder's own file.

    `settings` are aom's own, beside its tuning for images, "iq".
    """
    if max(image.size) > LONGEST_SIDE:
        raise ValueError(f"{image.width} x {image.height} pixels, AV1 stills go up to {LONGEST_SIDE} a side")
    file = io.BytesIO()
    try:
        image.save(
            file,
            "AVIF",
            codec="aom",
            quality=quality,
            speed=speed,
            subsampling=chroma,
            advanced={"tune": "iq", **settings},
            autotiling=False,
            max_threads=1,  # the encoded bytes depend on it
        )
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"Pillow cannot encode AVIF: {error}; expected a Pillow with libavif 1.3 and libaom 3.12 or later"
        ) from error
    bitstream = strip(file.getvalue())
    rebuilt = decode_still(bitstream, image.height, image.width)
    original = AvifImagePlugin.AvifImageFile(io.BytesIO(file.getvalue()))
    if rebuilt.mode != original.mode or rebuilt.tobytes() != original.tobytes():
        raise ValueError("the AV1 frame without its container decodes to other pixels than with it")
    return bitstream


def decode_still(bitstream: bytes, height: int, width: int) -> Image.Image:
    """Inverse of `encode_still`: an image in L or RGB of the given size."""
    file = io.BytesIO(wrap(bitstream, height, width))
    try:
        image = AvifImagePlugin.AvifImageFile(file)
        if image.size != (width, height):
            raise ValueError(f"{image.size[0]} x {image.size[1]} pixels")
        image.load()
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise ValueError(f"not an AV1 still of {width} x {height} pixels: {error}") from error
    return image


def strip(content: bytes) -> bytes:
    """An AVIF file -> bitstream."""
    frames, headers = [], []
    for kind, payload in _units(primary_item(content)):
        if kind == OBU_SEQUENCE_HEADER:
            headers.append(_parsed(payload))
        elif kind == OBU_FRAME:
            frames.append(payload)
        elif kind != OBU_TEMPORAL_DELIMITER:
            raise ValueError(f"AV1 unit of type {kind}, expected a sequence header (1) and a frame (6)")
    if len(headers) != 1 or len(frames) != 1:
        raise ValueError(f"{len(headers)} sequence headers and {len(frames)} frames, expected one of each")
    return bytes([_to_byte(headers[0])]) + frames[0]


def wrap(bitstream: bytes, height: int, width: int, matrix: int = BT601) -> bytes:
    """Inverse of `strip`: an AVIF file that any reader of AVIF decodes.

    With `matrix` 0 (identity) a 4:4:4 picture decodes to its own planes, as G, B and R.
    """
    if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
        raise ValueError(f"{width} x {height} pixels, AV1 stills have 1 to {LONGEST_SIDE} a side")
    if len(bitstream) < 2:
        raise ValueError(f"a bitstream of {len(bitstream)} bytes, expected a header byte and an AV1 frame")
    header = _from_byte(bitstream[0], height, width)
    item = _unit(OBU_SEQUENCE_HEADER, _written(header)) + _unit(OBU_FRAME, bitstream[1:])
    return still_file(
        item,
        height,
        width,
        channels=1 if header.chroma == "4:0:0" else 3,
        configuration=_configuration(header),
        colour=struct.pack(">HHHB", BT709, SRGB, matrix, 0x80),  # full range
    )


def _configuration(header: Header) -> bytes:
    """The four bytes of an AV1 codec configuration record."""
    profile = 1 if header.chroma == "4:4:4" else 0
    mono, subsampled = header.chroma == "4:0:0", header.chroma != "4:4:4"
    return bytes([0x81, profile << 5 | ANY_LEVEL, mono << 4 | subsampled << 3 | subsampled << 2, 0])


# The header byte.


def _to_byte(header: Header) -> int:
    flags = (
        header.use_128x128_superblock, header.enable_filter_intra, header.enable_intra_edge_filter,
        header.enable_cdef, header.enable_restoration, header.separate_uv_delta_q,
    )  # fmt: skip
    return CHROMAS.index(header.chroma) | sum(flag << bit for bit, flag in enumerate(flags, start=2))


def _from_byte(byte: int, height: int, width: int) -> Header:
    """Inverse of `_to_byte`."""
    if byte & 3 == 3:
        raise ValueError(f"header byte 0x{byte:02x}: chroma 3, expected 0, 1 or 2")
    return Header(width, height, CHROMAS[byte & 3], *(bool(byte >> bit & 1) for bit in range(2, 8)))


# The sequence header: AV1, section 5.5.


def _written(header: Header, level: int = ANY_LEVEL) -> bytes:
    """The payload of a sequence header unit."""
    width_bits, height_bits = ((side - 1).bit_length() or 1 for side in (header.width, header.height))
    profile = 1 if header.chroma == "4:4:4" else 0
    fields = [
        (profile, 3), (1, 1), (1, 1), (level, 5),  # still_picture, reduced_still_picture_header
        (width_bits - 1, 4), (height_bits - 1, 4),
        (header.width - 1, width_bits), (header.height - 1, height_bits),
        (header.use_128x128_superblock, 1), (header.enable_filter_intra, 1),
        (header.enable_intra_edge_filter, 1), (0, 1),  # enable_superres
        (header.enable_cdef, 1), (header.enable_restoration, 1), (0, 1),  # high_bitdepth
    ]  # fmt: skip
    if profile == 0:
        fields.append((header.chroma == "4:0:0", 1))  # mono_chrome
    fields += [(1, 1), (BT709, 8), (SRGB, 8), (BT601, 8), (1, 1)]  # color_description_present, color_range
    if header.chroma == "4:2:0":
        fields.append((0, 2))  # chroma_sample_position
    if header.chroma != "4:0:0":
        fields.append((header.separate_uv_delta_q, 1))
    fields += [(0, 1), (1, 1)]  # film_grain_params_present, trailing one bit
    bits = "".join(f"{int(value):0{count}b}" for value, count in fields)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def _parsed(payload: bytes) -> Header:
    """Inverse of `_written`, whatever the level; what a `Header` cannot say is refused."""
    bits = "".join(f"{byte:08b}" for byte in payload) + "0" * 128
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    profile, still, reduced, level = read(3), read(1), read(1), read(5)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    width, height = read(width_bits) + 1, read(height_bits) + 1
    superblock, filter_intra, edge_filter, _superres, cdef, restoration, _depth = (read(1) for _ in range(7))
    mono = read(1) if profile == 0 else 0
    chroma: Chroma = "4:4:4" if profile else "4:0:0" if mono else "4:2:0"
    read(26 if chroma != "4:2:0" else 28)  # colour description, range, chroma position
    separate = 0 if mono else read(1)
    flags = (bool(flag) for flag in (superblock, filter_intra, edge_filter, cdef, restoration, separate))
    header = Header(width, height, chroma, *flags)
    if not (still and reduced) or payload != _written(header, level):
        raise ValueError(
            f"AV1 sequence header {payload.hex()}, expected a reduced 8-bit still in sRGB, BT.601"
        )
    return header


# Units: AV1, section 5.3.


def _unit(kind: int, payload: bytes) -> bytes:
    """A unit with its size before it."""
    count, size = len(payload), bytearray()
    while count > 127:
        size.append(count & 127 | 128)
        count >>= 7
    size.append(count)
    return bytes([kind << 3 | 2]) + bytes(size) + payload


def _units(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each unit."""
    place = 0
    while place < len(content):
        head = content[place]
        place += 2 if head & 4 else 1  # extension
        count = len(content) - place
        if head & 2:  # has_size
            count = shift = 0
            while True:
                if place >= len(content) or shift > 28:
                    raise ValueError("an AV1 unit without its size")
                byte = content[place]
                count |= (byte & 127) << shift
                place, shift = place + 1, shift + 7
                if byte < 128:
                    break
        if place + count > len(content):
            raise ValueError(f"an AV1 unit of {count} bytes, {len(content) - place} are left")
        yield head >> 3 & 15, content[place : place + count]
        place += count
