"""Side bytes of the `layered` codec: a style and side symbols <-> words of one range coder."""

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
from archiver.codecs.layered_shape import SCALES, band


class Styles(nn.Module):
    """How the numbers of a style spread, by the base's scale, as a weights file keeps it: logistic distributions.

    `means` in eighths and `widths`, indices into the table of the entropy model: (len(SCALES), style) each.
    """

    def __init__(self, style: int) -> None:
        super().__init__()
        for name, value in (("means", 0), ("widths", WIDTHS // 2)):
            self.register_buffer(name, torch.full((len(SCALES), style), value, dtype=torch.int16))

    def fit(self, styles: NDArray[np.int8], scale: int, table: NDArray[np.int64]) -> None:
        """To those of so many pictures, (pictures, style): of all distributions, that of the fewest bits; in place."""
        place = SCALES.index(scale)
        for number, told in enumerate(styles.T):
            near = round(FINE * float(told.mean()))
            means, widths = np.meshgrid(np.arange(near - FINE, near + FINE + 1), np.arange(WIDTHS))
            counts = counts_of(means.ravel(), widths.ravel(), table)
            best = int(np.argmin(-np.log2(counts)[:, told.astype(int) + LARGEST].sum(1)))
            self.get_buffer("means")[place, number] = int(means.ravel()[best])
            self.get_buffer("widths")[place, number] = int(widths.ravel()[best])


@dataclass(frozen=True)
class Side:
    """What a bitstream tells of a picture beside its base: whole numbers of at most LARGEST."""

    style: NDArray[np.int8]  # (style,)
    symbols_chw: NDArray[np.int8]  # of cells


@dataclass(frozen=True)
class SideCoder:
    """Made by `load_side_coder`."""

    planes: LatentCoder
    # By the base's scale: counts of each number of a style (style, SYMBOLS).
    styles: tuple[NDArray[np.int64], ...]

    def pack(self, side: Side, scale: int, quality: int) -> bytes:
        """Checked to say the same."""

        def encode(encoder: Encoder) -> None:
            encode_counted(encoder, side.style, self.styles[SCALES.index(scale)])
            self.planes.encode(encoder, side.symbols_chw, band(scale, quality))

        words = packed_words(encode)
        _, h, w = side.symbols_chw.shape
        found = self.unpack(words, h, w, scale, quality)
        assert np.array_equal(found.style, side.style)
        assert np.array_equal(found.symbols_chw, side.symbols_chw)
        return words

    def unpack(self, words: bytes, h: int, w: int, scale: int, quality: int) -> Side:
        """Inverse of `pack`, of h x w cells; ValueError where no symbols have such words."""
        counts = self.styles[SCALES.index(scale)]

        def decode(decoder: Decoder) -> Side:
            style = decode_counted(decoder, counts)
            return Side(style, self.planes.decode(decoder, h, w, band(scale, quality)))

        return unpacked_words(words, decode, h * w * self.planes.channels + len(counts))


def load_side_coder(entropy: Integers, styles: Styles | None) -> SideCoder:
    """The coder of frozen integers; ValueError where they cannot be one."""
    planes = load_coder(entropy)
    if styles is None:
        return SideCoder(planes, (np.empty((0, SYMBOLS), dtype=np.int64),) * len(SCALES))
    means, widths = (styles.get_buffer(name).cpu().numpy().astype(np.int64) for name in ("means", "widths"))
    bounded = np.clip(means, -FINE * LARGEST, FINE * LARGEST), np.clip(widths, 0, WIDTHS - 1)
    return SideCoder(
        planes, tuple(counts_of(mean, width, planes.table) for mean, width in zip(*bounded, strict=True))
    )
