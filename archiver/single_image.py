"""One encoded image <-> the bytes of a file that carries all of it: manifests/FORMAT.md, "One image as a file"."""

import zlib
from importlib.resources import files
from pathlib import Path

from archiver.codecs.caption_text import MOST_BYTES, Table, decode_caption, encode_caption, load_table
from manifests.records import EncodedImage
from pipelines.images import MAX_PIXELS

MAGIC = b"\x93ar1"  # no text; the last byte is the version, which also says what captions are coded with
TABLE = ("captions-1.safetensors", "b074a693317c61caf1e98bf637c5d5725a29fde3261634b186bc4981bfdca05c")
CRC_BYTES = 4


def caption_table() -> Table:
    name, sha256 = TABLE
    return load_table(Path(str(files("archiver").joinpath("shipped", name))), sha256)


def pack(image: EncodedImage, spec_id: str, table: Table) -> bytes:
    told, caption = _told(image.caption, table)
    numbers = b"".join(map(_varint, (image.width, image.height, told)))
    content = MAGIC + bytes.fromhex(spec_id) + numbers + caption + image.bitstream
    return content + zlib.crc32(content).to_bytes(CRC_BYTES, "little")


def unpack(content: bytes, table: Table) -> tuple[EncodedImage, str]:
    """Inverse of `pack`: the image and its spec's id. ValueError for what is no such file, or a damaged one."""
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"begins with {content[: len(MAGIC)].hex(' ')}, expected {MAGIC.hex(' ')}")
    body, crc = content[:-CRC_BYTES], int.from_bytes(content[-CRC_BYTES:], "little")
    if zlib.crc32(body) != crc:
        raise ValueError("damaged: its checksum is another")
    spec_id, place = body[len(MAGIC) : len(MAGIC) + 8].hex(), len(MAGIC) + 8
    width, place = _number(body, place)
    height, place = _number(body, place)
    if not 1 <= width * height <= MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, expected 1 to {MAX_PIXELS:,}")
    told, place = _number(body, place)
    end = place + max(told - 1, 0) // 2
    if end > len(body):
        raise ValueError(f"ends after {len(content):,} bytes, within its caption")
    return EncodedImage(body[end:], _caption(told, body[place:end], table), height, width), spec_id


def _told(caption: str | None, table: Table) -> tuple[int, bytes]:
    """The caption's bytes n, and what says how many and what they are: 0 none, 1 + 2 n coded, 2 + 2 n plain."""
    if caption is None:
        return 0, b""
    plain = caption.encode("utf-8")
    coded = encode_caption(caption, table) if len(plain) <= MOST_BYTES else plain
    # The table is English: in other scripts a text can become twice as long.
    return (1 + 2 * len(coded), coded) if len(coded) < len(plain) else (2 + 2 * len(plain), plain)


def _caption(told: int, content: bytes, table: Table) -> str | None:
    """Inverse of `_told`."""
    if told == 0:
        return None
    return decode_caption(content, table) if told % 2 else content.decode("utf-8")


def _varint(number: int) -> bytes:
    """LEB128: seven bits a byte, least significant first; all bytes but the last have the high bit set."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _number(content: bytes, place: int) -> tuple[int, int]:
    """Inverse of `_varint`, of at most five bytes: the number, and where the next thing begins."""
    number = 0
    for shift, byte in enumerate(content[place : place + 5]):
        number |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return number, place + shift + 1
    raise ValueError("a number without an end")
