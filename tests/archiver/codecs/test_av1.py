import io
import struct
from itertools import product

import pytest
from PIL import Image

from archiver.codecs.av1 import CHROMAS, Chroma, decode_still, encode_still, strip, wrap
from archiver.codecs.isobmff import primary_item, still_file
from tests.samples import photo


@pytest.mark.parametrize("chroma", CHROMAS)
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (16, 16), (255, 256), (257, 3)])
def test_strip_inverts_wrap(chroma: Chroma, size: tuple[int, int]) -> None:
    height, width = size
    image = Image.fromarray(photo(height, width)).convert("L" if chroma == "4:0:0" else "RGB")
    bitstream = encode_still(image, chroma, 40, 8)
    assert strip(wrap(bitstream, height, width)) == bitstream
    assert decode_still(bitstream, height, width).size == (width, height)


def test_a_bitstream_is_the_header_byte_and_the_frame() -> None:
    # The AVIF file is larger by 275 bytes of boxes, 2 of a temporal delimiter, 12 of sequence header and 3
    # around the frame, and smaller by the header byte.
    image = Image.fromarray(photo(200, 300))
    file = io.BytesIO()
    image.save(file, "AVIF", quality=40, speed=6, max_threads=1, autotiling=False, advanced={"tune": "iq"})
    bitstream = encode_still(image, "4:2:0", 40, 6)
    assert bitstream == strip(file.getvalue())
    assert bitstream[0] & 3 == 1
    assert file.getvalue().endswith(bitstream[1:])
    assert len(file.getvalue()) - len(bitstream) == 291


def test_the_planes_of_a_picture_can_be_seen_through_the_identity_matrix() -> None:
    # A grey coded in colour: luma is nearly the grey, both chroma planes are 128 (G, B, R in AV1's order).
    bitstream = encode_still(Image.new("RGB", (8, 8), (60, 60, 60)), "4:4:4", 99, 8)
    seen = Image.open(io.BytesIO(wrap(bitstream, 8, 8, matrix=0)))
    red, green, blue = seen.getpixel((3, 3))  # type: ignore[misc]
    assert abs(green - 60) <= 3
    assert (blue, red) == (128, 128)


@pytest.mark.parametrize(("byte", "reason"), [(0x03, "chroma 3"), (0xFF, "chroma 3")])
def test_a_header_byte_that_is_none_is_refused(byte: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wrap(bytes([byte]) + b"\x00" * 20, 4, 4)


def test_every_header_byte_wraps_to_a_sequence_header_that_strips_back() -> None:
    for low, high in product(range(3), range(64)):
        byte = low | high << 2
        if low == 0 and byte & 128:
            continue  # grey has no chroma to quantize apart
        bitstream = bytes([byte]) + b"frame"
        assert strip(wrap(bitstream, 9, 500)) == bitstream


def test_an_item_is_found_wherever_its_boxes_are() -> None:
    whole = still_file(b"the item", 2, 3, 3, b"\x81\x00\x0c\x00", struct.pack(">HHHB", 1, 13, 6, 128))
    assert primary_item(whole) == b"the item"
    free = struct.pack(">I4s", 8 + 5, b"free") + b"12345"
    assert primary_item(whole + free) == b"the item"
    large = struct.pack(">I4sQ", 1, b"free", 16 + 3) + b"123"  # a 64-bit size
    assert primary_item(whole + large) == b"the item"


def test_a_file_cut_short_anywhere_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(photo(20, 30)).save(file, "AVIF", quality=20, max_threads=1)
    whole = file.getvalue()
    assert strip(whole)
    for count in range(len(whole)):
        with pytest.raises(ValueError, match=r"box|item|AV1"):
            strip(whole[:count])


def test_a_sequence_header_that_the_format_cannot_say_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(photo(20, 30)).save(file, "AVIF", range="limited", max_threads=1)
    with pytest.raises(ValueError, match="AV1 sequence header"):
        strip(file.getvalue())
