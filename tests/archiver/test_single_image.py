"""A file of one image: all of it comes back, and nothing else is taken for one."""

import zlib
from functools import cache

import pytest

from archiver.codecs.caption_text import MOST_BYTES
from archiver.single_image import MAGIC, caption_table, pack, unpack
from manifests.records import EncodedImage

SPEC = "0123456789abcdef"
table = cache(caption_table)


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    "caption",
    [
        None,
        "",
        "a cat on a mat",
        "日本の寺院",
        "x\n\0",
        "A cat. " * 60,
        "x" * MOST_BYTES,
        "x" * (MOST_BYTES + 1),
        "寺" * 100_000,
    ],
    ids=lambda caption: repr(caption)[:20],
)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (127, 128), (16_384, 12_000)])
def test_what_is_packed_comes_back(caption: str | None, height: int, width: int) -> None:
    image = EncodedImage(bytes(range(256)), caption, height, width)
    assert unpack(pack(image, SPEC, table()), table()) == (image, SPEC)


def test_a_file_is_the_bitstream_the_caption_and_few_bytes() -> None:
    image = EncodedImage(b"b" * 90, None, 512, 768)
    assert len(pack(image, SPEC, table())) == 90 + 21
    captioned = EncodedImage(b"b" * 90, "two cats sleeping on a couch", 512, 768)
    assert len(pack(captioned, SPEC, table())) <= 90 + 21 + 8
    foreign = EncodedImage(b"b" * 90, "日本の寺院と桜の木。", 512, 768)  # no longer than as it is
    assert len(pack(foreign, SPEC, table())) <= 90 + 21 + 30


def test_the_bytes_are_those_of_version_1() -> None:
    image = EncodedImage(b"\1\2\3", "a cat", 300, 5)
    assert pack(image, SPEC, table()).hex() == "936172310123456789abcdef05ac0207e1ce60010203435e00a9"


def test_a_flipped_bit_is_noticed_wherever_it_is() -> None:
    content = pack(EncodedImage(b"\1\2\3", "a cat", 300, 5), SPEC, table())
    for place in range(8 * len(content)):
        broken = bytearray(content)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"expected 93 61 72 31|damaged"):
            unpack(bytes(broken), table())
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"expected 93 61 72 31|damaged"):
            unpack(content[:length], table())


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (b"\0\5\0", "0 x 5 pixels"),
        (b"\xff\xff\xff\xff\x0f\5\0", "4294967295 x 5 pixels, expected 1 to"),
        (b"\5\5\x0b\1\2", "within its caption"),
        (b"\5\5\x04\xff", "can't decode"),
        (b"\5", "a number without an end"),
        (b"\xff\xff\xff\xff\xff\5\5\0", "a number without an end"),
    ],
)
def test_what_cannot_be_is_refused(rest: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack(sealed(MAGIC + bytes.fromhex(SPEC) + rest), table())
