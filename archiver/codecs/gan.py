"""The `gan` codec: few symbols, and a generator that has learned what pictures look like.

    pixels ->[pad]-> ->[encoder, 1/16]-> w ->[q: 5 centres]-> w_hat ->[tables, range coder]-> bitstream
    bitstream ->[tables]-> w_hat, labels, tints ->[generator]-> pixels

Generative compression (GC) and selective generative compression (SC) of Agustsson et al., ICCV 2019. Taken from it:
stride 16, C channels of L = 5 centres with soft gradients (section 3.1), an adversarially trained generator that is
also given noise (3.2), labels for the critic alone, GC(D+) (3.3), cells that are not coded but drawn from a label map,
with L1 on coded cells only (3.4). Departures:
- one network for all rates: it is trained with the first 2, 4 or 8 channels, and told how many;
- networks made for CPUs (gan_networks.py); the paper's own are there too, as a recipe for GPUs (gan_paper.py);
- trained with LPIPS and DISTS, the picture at 1/8, the pattern that all cells repeat, projected and pixel critics, and
  a mild price on the symbols' entropy;
- the mean colours of large squares are coded, too, and given to what was drawn (gan_tints.py);
- coding tables in small contexts (symbols.py) in place of an adaptive coder;
- SC: the heat map and the label map are one map (label 0: coded) at 1/16, GC and SC are one network, and LPIPS sees
  drawn cells too, so that they keep the colours around them.

The bitstream, all of it:

    byte 0      1: all cells are coded; 2: a label map comes first
    byte 1..    32-bit words of a range coder (constriction), big-endian, without the zero bytes at the end:
                tints (gan_tints.py), the label map (label_maps.py), then the symbols (symbols.py) of coded cells

Width and height, to whole cells of 16x16 pixels and at least 2x2 cells, are the caller's; shorter sides are stretched
to two cells (thin.py). Noise comes from Philox keyed by a hash of the bitstream. The one parameter of the spec is
`channels`, C. Palette and tables are in the weights file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archiver.codecs.drawing import noise, normal, true_to
from archiver.codecs.gan_labels import cell_labels, clusters
from archiver.codecs.gan_networks import (
    CELL,
    DRAWN_REACH,
    ENCODER_REACH,
    THOUGHT_REACH,
    Gan,
    Generator,
    Shape,
    told_of,
)
from archiver.codecs.gan_tints import SIDE, colours_of, decode_tints, encode_tints, tints_of
from archiver.codecs.label_maps import LabelTables, decode_labels, encode_labels
from archiver.codecs.networks import levels_of, load_network, weight_files
from archiver.codecs.specs import check_size, check_spec
from archiver.codecs.symbols import LEVELS, Tables, decode_symbols, encode_symbols
from archiver.codecs.thin import decode_shrunk, encode_stretched
from archiver.codecs.tiles import Tile, tiles
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

# Legend of suffixes: B batch (always 1 here), C channels; H, W pixels, padded; h, w cells.

NAME = "gan"
VERSION = 1
WHOLE, SELECTIVE = 1, 2  # byte 0
TILE = 64  # cells a side that are drawn at once: about 0.5 GB
LEAST = 2 * CELL  # pixels a side
MOST_BITS = 15  # that a symbol can take


@dataclass(frozen=True)
class Coded:
    """What a bitstream says."""

    symbols_chw: NDArray[np.uint8]  # 0 … 4; the middle one where a cell is drawn
    labels_hw: NDArray[np.uint8]  # 0: coded, else drawn as this
    tints_abp: NDArray[np.int16]  # see gan_tints.py


@dataclass(frozen=True)
class GanCodec:
    """A `Codec`; made by `load_gan`. Networks run in fp32, one picture at a time: batches change nothing."""

    spec: CodecSpec
    channels: int
    network: Gan
    tables: Tables
    label_tables: LabelTables
    device: torch.device
    reads_caption: bool = False
    batch: int = 1

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        return [encode_stretched(self._encoded, picture, LEAST) for picture in pictures]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        return [decode_shrunk(self._decoded, image, LEAST) for image in encoded]

    @torch.inference_mode()
    def _encoded(self, picture: Picture) -> EncodedImage:
        height, width = picture.pixels_hwc.shape[:2]
        whole = padded(picture.pixels_hwc)
        pixels = torch.from_numpy(whole).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        h, w = _cells(height, width)
        labels_hw = np.zeros((h, w), dtype=np.uint8)
        if picture.labels_hw is not None:
            own = clusters(pixels, self.network.get_buffer("palette"), CELL)[0].cpu().numpy()
            labels_hw = cell_labels(picture.labels_hw, own.astype(np.uint8), CELL)
            if labels_hw.max() > self.network.shape.labels:
                raise ValueError(
                    f"label {labels_hw.max()}, these weights know 1 to {self.network.shape.labels}"
                )
        symbols_chw = np.empty((self.channels, h, w), dtype=np.uint8)
        for tile in self._tiles(h, w, ENCODER_REACH):
            w_part = self.network.encode(tile.cut(pixels, CELL))[0, : self.channels]
            levels = (w_part.round().clamp(-(LEVELS // 2), LEVELS // 2) + LEVELS // 2).byte()
            symbols_chw[:, tile.rows, tile.columns] = tile.inner(levels, 1).cpu().numpy()
        symbols_chw[:, labels_hw > 0] = LEVELS // 2
        bitstream = self.pack(Coded(symbols_chw, labels_hw, tints_of(whole)))
        return EncodedImage(bitstream, picture.caption, height, width)

    def pack(self, coded: Coded) -> bytes:
        """Symbols and labels -> bitstream, checked to say the same."""
        encoder = constriction.stream.queue.RangeEncoder()
        encode_tints(encoder, coded.tints_abp)
        selective = bool(coded.labels_hw.any())
        if selective:
            encode_labels(encoder, coded.labels_hw, self.label_tables)
        symbols_n, tables_n = encode_symbols(coded.symbols_chw, coded.labels_hw == 0, self.tables)
        if len(symbols_n):
            encoder.encode(symbols_n, constriction.stream.model.Categorical(perfect=False), tables_n)
        words: bytes = encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")
        bitstream = bytes([SELECTIVE if selective else WHOLE]) + words
        found = self.unpack(bitstream, *coded.labels_hw.shape)
        assert np.array_equal(found.labels_hw, coded.labels_hw)
        assert np.array_equal(found.symbols_chw, coded.symbols_chw)
        assert np.array_equal(found.tints_abp, coded.tints_abp)
        return bitstream

    def unpack(self, bitstream: bytes, h: int, w: int) -> Coded:
        """Inverse of `pack`, of h x w cells; ValueError where a bitstream cannot be one of this codec."""
        if not bitstream or bitstream[0] not in (WHOLE, SELECTIVE):
            raise ValueError(
                f"a bitstream that begins with {bitstream[:1].hex() or 'nothing'}, expected byte 01 or 02"
            )
        # Each cell: C symbols, a label (a rank and a name), and at most one tint.
        longest = 1 + h * w * (self.channels + 5) * MOST_BITS // 8 + 8
        if len(bitstream) > longest:
            raise ValueError(
                f"a bitstream of {len(bitstream)} bytes, expected up to {longest} for {h} x {w} cells"
            )
        words = bitstream[1:] + bytes(-len(bitstream[1:]) % 4 + 4)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, ">u4").astype(np.uint32))
        labels_hw = np.zeros((h, w), dtype=np.uint8)
        try:
            tints_abp = decode_tints(decoder, h * CELL, w * CELL)
            if bitstream[0] == SELECTIVE:
                labels_hw = decode_labels(decoder, h, w, self.label_tables)
            symbols_chw = decode_symbols(decoder, self.channels, labels_hw == 0, self.tables)
        except AssertionError as error:  # so constriction says that no symbols lead to such words
            raise ValueError(f"a bitstream that no picture has: {error}") from error
        return Coded(symbols_chw, labels_hw, tints_abp)

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage) -> Pixels:
        h, w = _cells(encoded.height, encoded.width)
        coded = self.unpack(encoded.bitstream, h, w)
        network, generator = self.network, self.network.generator
        w_hat = torch.zeros(1, network.shape.channels, h, w, device=self.device)
        w_hat[0, : self.channels] = torch.from_numpy(coded.symbols_chw).to(self.device).float() - LEVELS // 2
        labels = torch.from_numpy(coded.labels_hw.astype(np.int64)).to(self.device)[None]
        quarter, full = (
            torch.from_numpy(values).to(self.device)[None, None]
            for values in noise(encoded.bitstream, h * CELL, w * CELL)
        )
        channels = torch.tensor([self.channels], device=self.device)
        planes, told = network.planes(w_hat, labels, channels, normal(quarter)), told_of(channels)
        made = np.empty((h * CELL, w * CELL, 3), dtype=np.uint8)
        if not isinstance(generator, Generator):
            made[:] = levels_of(generator(planes, told))
        else:
            thought = self._thought(generator, planes, told)
            for tile in self._tiles(h, w, DRAWN_REACH):
                noises = normal(tile.cut(quarter, CELL // 4)), normal(tile.cut(full, CELL))
                part = generator.drawn(tile.cut(thought, 1), told, *noises)
                made[tile.pixel_rows(CELL), tile.pixel_columns(CELL)] = levels_of(tile.inner(part, CELL))
        made = true_to(made, colours_of(coded.tints_abp), SIDE)
        return np.ascontiguousarray(made[: encoded.height, : encoded.width])

    def _thought(self, generator: Generator, planes: Tensor, told: Tensor) -> Tensor:
        """`Generator.thought`, of four by four tiles' cells at a time."""
        h, w = planes.shape[2:]
        parts = [
            (tile, tile.inner(generator.thought(tile.cut(planes, 1), told), 1))
            for tile in tiles(h, w, 4 * TILE, THOUGHT_REACH)
        ]
        if len(parts) == 1:
            return parts[0][1]
        whole = torch.empty(1, parts[0][1].shape[1], h, w, device=self.device)
        for tile, part in parts:
            whole[:, :, tile.rows, tile.columns] = part
        return whole

    def _tiles(self, h: int, w: int, reach: int) -> list[Tile]:
        return tiles(h, w, max(h, w) if self.network.shape.paper else TILE, reach)


def padded(pixels_hwc: Pixels) -> Pixels:
    """To whole cells, edges repeated below and to the right."""
    height, width = pixels_hwc.shape[:2]
    h, w = _cells(height, width)
    return np.pad(pixels_hwc, ((0, h * CELL - height), (0, w * CELL - width), (0, 0)), mode="edge")


def _cells(height: int, width: int) -> tuple[int, int]:
    check_size(height, width)
    return -(-max(height, LEAST) // CELL), -(-max(width, LEAST) // CELL)


def load_gan(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> GanCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    params = dict(spec.params)
    channels = params.pop("channels", None)
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected channels")
    (file,) = weight_files(spec, weights, 1)
    place = torch.device(device)
    network = load_network(file, lambda shape: Gan(Shape(**shape)), place)
    if type(channels) is not int or not 1 <= channels <= network.shape.channels:
        raise ValueError(f"channels {channels!r}, expected 1 to {network.shape.channels}")
    found = {
        name: network.get_buffer(name).cpu().numpy() for name in ("neighbours", "tables", "ranks", "labels")
    }
    return GanCodec(
        spec,
        channels,
        network,
        Tables(found["neighbours"], found["tables"]),
        LabelTables(found["ranks"], found["labels"]),
        place,
    )
