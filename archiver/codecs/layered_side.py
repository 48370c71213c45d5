"""Side bytes of the `layered` codec: a style and side symbols <-> words of one range coder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from archiver.codecs.latent_codec import (
    Decoder,
    Encoder,
    LatentCoder,
    counts_of,
    decode_counted,
    encode_counted,
    load_coder,
    packed_words,
    unpacked_words,
)
from archiver.codecs.latent_model import FINE, LARGEST, SYMBOLS, Integers
from archiver.codecs.latent_model import SCALES as WIDTHS
from archiver.codecs.layered_shape import SCALES, Shape, band, style_count


class Styles(nn.Module):
    """How the numbers of a style spread, by the base's scale, as a weights file keeps it: logistic distributions.

    `means` in eighths and `widths`, indices into the table of the entropy model: (len(SCALES), style) each.
    """

    def __init__(self, style: int) -> None:
        super().__init__()
        for name, value in (("means", 0), ("widths", WIDTHS // 2)):
            self.register_buffer(name, torch.full((len(SCALES), style), value, dtype=torch.int16))

    def fit(self, styles: Sequence[NDArray[np.int8]], scale: int, table: NDArray[np.int64]) -> None:
        """To those of pictures, of which small ones tell few: the distributions of the fewest bits; in place."""
        place = SCALES.index(scale)
        for number in range(max(map(len, styles))):
            told = np.array([style[number] for style in styles if number < len(style)])
            near = round(FINE * float(told.mean()))
            means, widths = np.meshgrid(np.arange(near - FINE, near + FINE + 1), np.arange(WIDTHS))
            counts = counts_of(means.ravel(), widths.ravel(), table)
            best = int(np.argmin(-np.log2(counts)[:, told.astype(int) + LARGEST].sum(1)))
            self.get_buffer("means")[place, number] = int(means.ravel()[best])
            self.get_buffer("widths")[place, number] = int(widths.ravel()[best])


@dataclass(frozen=True)
class Side:
    """What a bitstream tells of a picture beside its base: whole numbers of at most LARGEST."""

    style: NDArray[np.int8]  # the numbers that are told, see `style_count`
    symbols_chw: NDArray[np.int8]  # of cells


@dataclass(frozen=True)
class SideCoder:
    """Made by `load_side_coder`."""

    planes: LatentCoder
    # By the base's scale: counts of each number of a style (style, SYMBOLS).
    styles: tuple[NDArray[np.int64], ...]
    shape: Shape

    def pack(self, side: Side, scale: int, quality: int) -> bytes:
        """Checked to say the same."""

        def encode(encoder: Encoder) -> None:
            encode_counted(encoder, side.style, self._counts(h, w, scale))
            self.planes.encode(encoder, side.symbols_chw, band(scale, quality))

        _, h, w = side.symbols_chw.shape
        words = packed_words(encode)
        found = self.unpack(words, h, w, scale, quality)
        assert np.array_equal(found.style, side.style)
        assert np.array_equal(found.symbols_chw, side.symbols_chw)
        return words

    def unpack(self, words: bytes, h: int, w: int, scale: int, quality: int) -> Side:
        """Inverse of `pack`, of h x w cells; ValueError where no symbols have such words."""
        counts = self._counts(h, w, scale)

        def decode(decoder: Decoder) -> Side:
            style = decode_counted(decoder, counts)
            return Side(style, self.planes.decode(decoder, h, w, band(scale, quality)))

        return unpacked_words(words, decode, h * w * self.planes.channels + len(counts))

    def _counts(self, h: int, w: int, scale: int) -> NDArray[np.int64]:
        return self.styles[SCALES.index(scale)][: style_count(self.shape, h, w)]


def load_side_coder(entropy: Integers, styles: Styles | None, shape: Shape) -> SideCoder:
    """The coder of frozen integers; no styles: none are told. ValueError where they cannot be one."""
    planes = load_coder(entropy)
    if styles is None:
        return SideCoder(planes, (np.empty((0, SYMBOLS), dtype=np.int64),) * len(SCALES), shape)
    means, widths = (styles.get_buffer(name).cpu().numpy().astype(np.int64) for name in ("means", "widths"))
    bounded = np.clip(means, -FINE * LARGEST, FINE * LARGEST), np.clip(widths, 0, WIDTHS - 1)
    counts = (counts_of(mean, width, planes.table) for mean, width in zip(*bounded, strict=True))
    return SideCoder(planes, tuple(counts), shape)
