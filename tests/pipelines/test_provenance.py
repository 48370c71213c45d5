import io
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pipelines.codec import Pixels
from pipelines.images import Format, read_image, read_provenance, write_image
from pipelines.provenance import CONVENTIONAL, DC, GENERATIVE, IPTC, Provenance, from_xmp, to_xmp

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "avif")
PLAIN = Provenance("gan", "0123456789abcdef", 1142, "s3://bucket/archive", "2019/beach.jpg", "A beach.")
PIXELS: Pixels = np.full((5, 7, 3), 128, dtype=np.uint8)
NASTY = [
    "",
    "quotes \" and ' and <tags> & &amp; entities; ]]> <!-- -->",
    "line one\nline two\r\nline three\rend",
    "  blanks at both ends\t ",
    "bell \x07, nul \x00, delete \x7f, next line \x85, separator \u2028",
    "backslash \\ and \\u0041 and \\\\",
    "日本語 ünïcödé 😀 עברית",
    "a file name that is not UTF-8: \udcff\udc80",
    "not characters: \ufffe \uffff",
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", NASTY)
def test_provenance_comes_back_from_every_format(format: Format, text: str) -> None:
    provenance = replace(PLAIN, archive=f"s3://b/{text}", key=f"{text}.jpg", caption=text)
    assert read_provenance(write_image(PIXELS, format, provenance)) == provenance


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_without_caption_has_none_afterwards(format: Format) -> None:
    provenance = replace(PLAIN, caption=None, generative=False)
    assert read_provenance(write_image(PIXELS, format, provenance)) == provenance


@pytest.mark.parametrize("format", FORMATS)
def test_a_written_file_shows_the_pixels(format: Format) -> None:
    found = read_image(write_image(PIXELS, format, PLAIN))
    assert found.pixels_hwc.shape == (5, 7, 3)
    assert np.abs(found.pixels_hwc.astype(int) - 128).max() <= (0 if format == "png" else 2)
    assert found.notes is None


def test_a_png_says_in_plain_text_what_it_is() -> None:
    texts = Image.open(io.BytesIO(write_image(PIXELS, "png", PLAIN))).info
    assert texts["Software"] == "archiver"
    assert texts["Description"] == (
        "A beach.\n\nReconstruction by archiver, not the original image: "
        "decoded from 1,142 bytes of codec gan (spec 0123456789abcdef)."
    )


@pytest.mark.parametrize(("generative", "expected"), [(True, GENERATIVE), (False, CONVENTIONAL)])
def test_the_source_type_is_of_iptcs_vocabulary(generative: bool, expected: str) -> None:
    root = ElementTree.fromstring(to_xmp(replace(PLAIN, generative=generative)))
    assert root.findtext(f".//{{{IPTC}}}DigitalSourceType") == expected
    assert "not the original image" in "".join(root.find(f".//{{{DC}}}description").itertext())  # type: ignore[union-attr]


@pytest.mark.parametrize("format", FORMATS)
def test_a_caption_longer_than_a_jpeg_can_hold_is_cut_with_an_ellipsis(format: Format) -> None:
    found = read_provenance(write_image(PIXELS, format, replace(PLAIN, caption="&" * 100_000)))
    assert found is not None
    assert found.caption == "&" * 3999 + "…"


def test_a_format_that_cannot_hold_the_size_is_refused() -> None:
    with pytest.raises(ValueError, match="16384 x 1 pixels, webp holds at most 16,383 a side"):
        write_image(np.zeros((1, 16_384, 3), dtype=np.uint8), "webp", PLAIN)


def test_other_peoples_files_have_no_provenance() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    assert read_provenance(file.getvalue()) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x/>",
        to_xmp(PLAIN)[:-40],
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + to_xmp(PLAIN),
        to_xmp(PLAIN).replace(b">1142<", b">many<"),
    ],
)
def test_a_packet_that_is_not_ours_or_damaged_is_none(packet: bytes) -> None:
    assert from_xmp(packet) is None
