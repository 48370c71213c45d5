"""Originals and reconstructions -> one PNG, side by side."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from manifests.records import EncodedImage
from pipelines.codec import Pixels

WIDTH = 1680  # pixels; all lengths below too
MARGIN = 72
GUTTER = 32  # between the two pictures of a row
COLUMN = (WIDTH - 2 * MARGIN - GUTTER) // 2
TALLEST = 540  # a picture
WIDEST_ZOOM = 4  # small pictures are enlarged at most so much, with their pixels left to be seen

PAPER, INK, GREY, FAINT = "#ffffff", "#16181d", "#667080", "#dde1e7"
HEADING, FACTS, LABEL, TITLE, DETAIL = 40, 21, 17, 24, 21  # font sizes
LEADING = 1.45  # height of a line of text, in font sizes

# Pillow's own font draws ASCII and these; the rest is spelled with them, or is an empty box.
DRAWN = "‘’“”…·"
SPELLED = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "Ø": "O"}
)


@dataclass(frozen=True)
class SheetRow:
    """One image, before and after."""

    original_hwc: Pixels
    restored_hwc: Pixels
    title: str  # its key
    detail: str  # lines below the title; `detail_of` writes them


def detail_of(source_bytes: int, encoded: EncodedImage) -> str:
    """Example: "2,413,881 bytes to 142 bytes · 16,999 : 1 · 0.0095 bits per pixel", below it the caption."""
    bitstream_bytes = len(encoded.bitstream)
    ratio = source_bytes / max(1, bitstream_bytes)
    bpp = 8 * bitstream_bytes / (encoded.height * encoded.width)
    sizes = f"{source_bytes:,} bytes to {bitstream_bytes:,} bytes"
    numbers = f"{sizes} · {ratio:,.{0 if ratio >= 100 else 1}f} : 1 · {bpp:.4f} bits per pixel"
    caption = " ".join((encoded.caption or "").split())
    return f"{numbers}\n“{caption}”" if caption else numbers


def comparison_sheet(
    rows: Sequence[SheetRow], heading: str = "Originals and reconstructions", facts: str = ""
) -> bytes:
    """A PNG, one row an image: original left, reconstruction right, key and numbers below.

    Text too long for the page is cut with an ellipsis: keys in the middle, all else at the end.
    """
    if not rows:
        raise ValueError("a comparison sheet of no images, expected one at least")
    pairs = [_fit(row) for row in rows]
    blocks = [_row_height(row, pair[0].height) for row, pair in zip(rows, pairs, strict=True)]
    top = _header_height(facts)
    page = Image.new("RGB", (WIDTH, top + sum(blocks) + MARGIN - GUTTER), PAPER)
    draw = ImageDraw.Draw(page)
    _draw_header(draw, heading, facts)
    for row, pair, block in zip(rows, pairs, blocks, strict=True):
        _draw_row(page, draw, row, pair, top)
        top += block
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fit(row: SheetRow) -> tuple[Image.Image, Image.Image]:
    """Both pictures at one scale, no wider than a column and no taller than a row."""
    if row.original_hwc.shape != row.restored_hwc.shape:
        found = f"{row.original_hwc.shape} and {row.restored_hwc.shape}"
        raise ValueError(f"sheet row {row.title!r}: shapes {found}, expected equal ones")
    height, width = row.original_hwc.shape[:2]
    scale = min(COLUMN / width, TALLEST / height, WIDEST_ZOOM)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    filter_ = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    first, second = (
        Image.fromarray(pixels).resize(size, filter_) for pixels in (row.original_hwc, row.restored_hwc)
    )
    return first, second


def _line_height(size: int) -> int:
    return round(size * LEADING)


def _header_height(facts: str) -> int:
    lines = len(facts.splitlines()) * _line_height(FACTS)
    return MARGIN + _line_height(HEADING) + lines + 28 + _line_height(LABEL) + 10


def _row_height(row: SheetRow, picture_height: int) -> int:
    lines = len(row.detail.splitlines())
    return picture_height + 14 + _line_height(TITLE) + lines * _line_height(DETAIL) + GUTTER + 12


def _draw_header(draw: ImageDraw.ImageDraw, heading: str, facts: str) -> None:
    y = MARGIN
    _text(draw, MARGIN, y, heading, HEADING, INK)
    y += _line_height(HEADING)
    for line in facts.splitlines():
        _text(draw, MARGIN, y, line, FACTS, GREY)
        y += _line_height(FACTS)
    y += 28
    _text(draw, MARGIN, y, "Original", LABEL, GREY)
    _text(draw, MARGIN + COLUMN + GUTTER, y, "Reconstruction", LABEL, GREY)


def _draw_row(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: SheetRow,
    pair: tuple[Image.Image, Image.Image],
    y: int,
) -> None:
    for left, picture in zip((MARGIN, MARGIN + COLUMN + GUTTER), pair, strict=True):
        page.paste(picture, (left, y))
        # A hairline around, not over, the picture: a white one would melt into the page.
        frame = (left - 1, y - 1, left + picture.width, y + picture.height)
        draw.rectangle(frame, outline=FAINT)
    y += pair[0].height + 14
    _text(draw, MARGIN, y, row.title, TITLE, INK, cut_at=0.5)
    y += _line_height(TITLE)
    for line in row.detail.splitlines():
        _text(draw, MARGIN, y, line, DETAIL, GREY)
        y += _line_height(DETAIL)


def _text(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, colour: str, cut_at: float = 1.0
) -> None:
    font = ImageFont.load_default(size=size)
    draw.text((x, y), _shorten(_drawable(text), font, WIDTH - 2 * MARGIN, cut_at), fill=colour, font=font)


def _drawable(text: str) -> str:
    """Example: "Café – 日本\\n" -> "Cafe - □□?" (accents fall off; "?" is not printable)."""
    spelled = "".join(_spelled(letter) for letter in text.translate(SPELLED))
    return "".join(letter if letter.isprintable() else "?" for letter in spelled)


def _spelled(letter: str) -> str:
    if letter.isascii() or letter in DRAWN:
        return letter
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if base.isascii() else letter


def _shorten(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    cut_at: float,
) -> str:
    """The text itself if it fits, else as much as fits of its beginning (`cut_at`, a share) and its end."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, min(len(text), 1000)  # letters kept
    while low < high:
        middle = (low + high + 1) // 2
        fits = font.getlength(_cut(text, middle, cut_at)) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return _cut(text, low, cut_at)


def _cut(text: str, letters: int, cut_at: float) -> str:
    """Example: _cut("abcdefgh", 4, 0.5) -> "ab…gh"."""
    first = round(letters * cut_at)
    last = letters - first
    return f"{text[:first].rstrip()}…{text[len(text) - last :].lstrip()}"
