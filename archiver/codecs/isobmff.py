"""The boxes of an AVIF file <-> its one coded item (ISO/IEC 14496-12 and 23008-12)."""

import struct
from collections.abc import Iterator


def still_file(
    item: bytes, height: int, width: int, channels: int, configuration: bytes, colour: bytes
) -> bytes:
    """An AVIF file of one AV1 item: `configuration` is its av1C record, `colour` its nclx values."""
    properties = (
        _full_box(b"ispe", struct.pack(">II", width, height)),
        _full_box(b"pixi", bytes([channels]) + b"\x08" * channels),
        _box(b"av1C", configuration),
        _box(b"colr", b"nclx" + colour),
    )
    # Properties by number; 0x80 marks the one that a reader has to understand, the configuration.
    associations = struct.pack(">IHB", 1, 1, len(properties)) + bytes([1, 2, 3 | 0x80, 4])

    def meta(offset: int) -> bytes:
        return _full_box(
            b"meta",
            _full_box(b"hdlr", struct.pack(">I4s12xB", 0, b"pict", 0))
            + _full_box(b"pitm", struct.pack(">H", 1))
            # Offsets and lengths of 4 bytes; item 1, in the file itself, of one extent.
            + _full_box(b"iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(item)))
            + _full_box(
                b"iinf", struct.pack(">H", 1) + _full_box(b"infe", struct.pack(">HH4sB", 1, 0, b"av01", 0), 2)
            )
            + _box(b"iprp", _box(b"ipco", b"".join(properties)) + _full_box(b"ipma", associations)),
        )

    head = _box(b"ftyp", b"avif" + bytes(4) + b"avifmif1miaf")
    return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", item)


def primary_item(content: bytes) -> bytes:
    """Inverse of `still_file`, and of any other writer: the bytes of the file's primary item."""
    try:
        boxes = dict(_boxes(_child(content, b"meta")[4:]))
        version = boxes[b"pitm"][0]
        wanted = int.from_bytes(boxes[b"pitm"][4 : 8 if version else 6], "big")
        extents = _extents(boxes[b"iloc"], wanted)
    except (KeyError, IndexError, struct.error) as error:
        raise ValueError(f"an AVIF file without its primary item: {error}") from error
    parts = [content[start : start + count] for start, count in extents]
    if not parts or any(len(part) != count for part, (_, count) in zip(parts, extents, strict=True)):
        raise ValueError("an AVIF file that ends before its primary item does")
    return b"".join(parts)


def _extents(iloc: bytes, wanted: int) -> list[tuple[int, int]]:
    """Start and length, in the file, of an item's parts."""
    version, offset_bytes, length_bytes = iloc[0], iloc[4] >> 4, iloc[4] & 15
    base_bytes, index_bytes = iloc[5] >> 4, iloc[5] & 15 if version else 0
    id_bytes, place = (4 if version == 2 else 2), 6

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(iloc):
            raise IndexError("the item locations are cut short")
        return int.from_bytes(iloc[place - count : place], "big")

    for _ in range(read(id_bytes)):
        item, method = read(id_bytes), read(2) & 15 if version else 0
        read(2)  # which file: 0, this one
        base, extents = read(base_bytes), []
        for _ in range(read(2)):
            read(index_bytes)
            extents.append((base + read(offset_bytes), read(length_bytes)))
        if item == wanted:
            if method != 0:
                raise ValueError(f"an AVIF item of construction method {method}, expected 0")
            return extents
    raise KeyError(f"item {wanted}")


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of each box."""
    place = 0
    while place < len(content):
        count, kind = struct.unpack_from(">I4s", content, place)
        head = 8
        if count == 1:
            (count,), head = struct.unpack_from(">Q", content, place + 8), 16
        elif count == 0:  # to the end
            count = len(content) - place
        if count < head or place + count > len(content):
            raise ValueError(f"a box {kind!r} of {count} bytes, {len(content) - place} are left")
        yield kind, content[place + head : place + count]
        place += count


def _child(content: bytes, wanted: bytes) -> bytes:
    for kind, payload in _boxes(content):
        if kind == wanted:
            return payload
    raise KeyError(wanted.decode())


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def _full_box(kind: bytes, payload: bytes, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]) + payload)
