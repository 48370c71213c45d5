"""The `layered` codec: an AV1 still at reduced size, and a network that draws what it leaves out.

    pixels ->[pad, 1/scale, Lanczos]-> small pixels ->[AV1]-> base
    pixels, base ->[observer, 1/16]-> y ->[/ step, round]-> side symbols ->[entropy model, range coder]-> side bitstream
    base ->[AV1]-> small pixels; small pixels, side symbols * step ->[enhancer]-> pixels

The base is a bitstream of archiver/codecs/av1.py: without the network's weights it still decodes, with any AV1
decoder, to the small picture. Side symbols tell the enhancer what the base does not show: what a surface was like. The
enhancer is one forward pass. All is ours; its parts are known ones: the networks of layered_networks.py, the entropy
model in whole numbers of latent_codec.py, noise inputs for texture (StyleGAN), and training by L1, LPIPS, DISTS, a
projected discriminator (Sauer et al., NeurIPS 2021), the pattern that all cells of a batch repeat, and side bits.

The bitstream, all of it:

    byte 0      n, the bytes of the side bitstream; 255: the next three bytes are n, big-endian
    n bytes     32-bit words of a range coder (constriction), big-endian, without the zero bytes at the end
    the rest    the base, see av1.py

Parameters of the spec: scale (2, 4 or 8) and chroma as for `avif`; quality (libavif's), which the networks are told;
step, in hundredths: a larger one makes side symbols coarser and fewer side bits.
The padding (edges repeated, to whole cells of 16x16) makes `scale` exact. A picture that is thinner than a cell is
stretched to one instead (thin.py), and is its base alone, of a good quality: there is nothing around to draw from. The
decoder mirrors base and side symbols MARGIN cells beyond the edges, draws that too, and cuts it off. Noise, of that
size, comes from Philox keyed by a hash of the base: the same on every machine, whichever rows are restored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from archiver.codecs.av1 import Chroma, decode_still, encode_still
from archiver.codecs.drawing import enlarged, noise, normal, true_to_base
from archiver.codecs.latent_codec import LatentCoder, load_coder, pack_planes, unpack_planes
from archiver.codecs.latent_model import LARGEST
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import CELL, DRAWN_REACH, ENCODER_REACH, SCALES, Shape, band, conditions
from archiver.codecs.networks import levels_of, load_network, weight_files
from archiver.codecs.specs import check_size, check_spec
from archiver.codecs.thin import is_thin, shrunk, stretched
from archiver.codecs.tiles import Tile, tiles
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

# Legend of suffixes: B batch (always 1 here), C channels; H, W pixels, padded; h, w cells of CELL x CELL pixels.

NAME = "layered"
VERSION = 1
PARAMS = ("scale", "quality", "chroma", "step")
# aom's own scale from 0 (slow) to 10. Against 6, 4 takes five times as long and saves 8 % of the bytes at equal error;
# 2 takes three times as long again, for 3 %.
SPEED = 4
# The quantisation matrices of "iq" coarsen high frequencies for eyes that see the base itself. Without them LPIPS was
# lower by .002 to .003 at equal bytes, with sharpness 4 by up to as much again (four and six photographs), though the
# enhancer of that day had learned from bases with matrices.
SETTINGS = MappingProxyType({"enable-qm": "0", "sharpness": "4"})
TILE = 48  # cells a side that are seen and drawn at once: about 0.25 GB
# Cells: what decoding mirrors beyond a picture's edges, near which networks draw lines. As much at the edges of crops
# counts nothing in training.
MARGIN = 1
# At least, of the base of a thin picture, which is all there is of it: rows of a photograph at `layered-0.012` take 86
# to 98 bytes instead of 41 to 43, and are 4.5 to 5.5 dB better.
THIN_QUALITY = 40
LONG = 255  # byte 0 of a bitstream whose length of side bytes takes three more

T = TypeVar("T", bound=np.generic)


def padded(pixels_hwc: Pixels) -> Pixels:
    """To whole cells, edges repeated below and to the right."""
    height, width = pixels_hwc.shape[:2]
    return np.pad(pixels_hwc, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")


def reduced(pixels_hwc: Pixels, scale: int) -> Image.Image:
    """Whole cells -> the small picture, 1/scale a side."""
    height, width = pixels_hwc.shape[:2]
    return Image.fromarray(pixels_hwc).resize((width // scale, height // scale), Image.Resampling.LANCZOS)


def based(small: Image.Image, chroma: Chroma, quality: int) -> bytes:
    """The small picture's bitstream."""
    return encode_still(small, chroma, quality, SPEED, SETTINGS)


def join(side: bytes, base: bytes) -> bytes:
    """Both parts -> bitstream."""
    size = bytes([len(side)]) if len(side) < LONG else bytes([LONG]) + len(side).to_bytes(3, "big")
    return size + side + base


def split(bitstream: bytes) -> tuple[bytes, bytes]:
    """Inverse of `join`; ValueError where a bitstream ends before its base begins."""
    first, size = 1, bitstream[0] if bitstream else 0
    if size == LONG:
        first, size = 4, int.from_bytes(bitstream[1:4], "big")
    if len(bitstream) <= first + size:
        raise ValueError(f"a bitstream of {len(bitstream)} bytes, expected {size} side bytes and a base")
    return bitstream[first : first + size], bitstream[first + size :]


@dataclass(frozen=True)
class LayeredCodec:
    """A `Codec`; made by `load_layered`. Networks run in fp32, one picture at a time: batches change nothing."""

    spec: CodecSpec
    scale: int
    quality: int
    chroma: Literal["4:2:0", "4:4:4"]
    step: float
    enhancer: Enhancer
    coder: LatentCoder | None  # of side symbols, where the network has any
    device: torch.device
    reads_caption: bool = False
    batch: int = 1

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        return [self._encoded(picture) for picture in pictures]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        return [self._decoded(image) for image in encoded]

    def base(self, encoded: EncodedImage) -> Image.Image:
        """The small picture, as any AV1 decoder shows it: L or RGB, the padded size over `scale`."""
        height, width = _padded_size(encoded.height, encoded.width)
        return decode_still(split(encoded.bitstream)[1], height // self.scale, width // self.scale)

    def decode_base(self, encoded: EncodedImage) -> Pixels:
        """The small picture, enlarged: no network has a hand in it."""
        base = self.base(encoded).convert("RGB")
        size = base.width * self.scale, base.height * self.scale
        whole_hwc = np.asarray(base.resize(size, Image.Resampling.BICUBIC))
        seen_hwc = whole_hwc[: max(encoded.height, CELL), : max(encoded.width, CELL)]
        return np.ascontiguousarray(shrunk(seen_hwc, encoded.height, encoded.width))

    def _encoded(self, picture: Picture) -> EncodedImage:
        height, width = picture.pixels_hwc.shape[:2]
        pixels_hwc = stretched(picture.pixels_hwc, CELL)
        thin = is_thin(height, width, CELL)
        base = self._based(pixels_hwc, max(self.quality, THIN_QUALITY) if thin else self.quality)
        side = b""
        if self.coder is not None and not thin:
            side = pack_planes(self.coder, self.observed(pixels_hwc, base), self._band)
        return EncodedImage(join(side, base), picture.caption, height, width)

    def _based(self, pixels_hwc: Pixels, quality: int) -> bytes:
        small = reduced(padded(pixels_hwc), self.scale)
        if np.any(pixels_hwc != pixels_hwc[..., :1]):
            return based(small, self.chroma, quality)
        return based(small.convert("L"), "4:0:0", quality)

    @property
    def _band(self) -> int:
        return band(self.scale, self.quality)

    def _told(self, small: Image.Image, base: bytes) -> Tensor:
        told = conditions(self.scale, self.quality, len(base), small.height * small.width)
        return torch.tensor([told], dtype=torch.float32, device=self.device)

    def _floats(self, levels_hwc: NDArray[np.uint8]) -> Tensor:
        """Levels -> (1, 3, ...) in [-1, 1], channels last."""
        levels = torch.from_numpy(levels_hwc).to(self.device).permute(2, 0, 1)[None]
        return (levels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def observed(self, pixels_hwc: Pixels, base: bytes | None = None) -> NDArray[np.int8]:
        """Side symbols (C, h, w) of a picture; `base` as `encode` makes it, where it is there already."""
        assert self.enhancer.observer is not None
        base = base or self._based(pixels_hwc, self.quality)
        whole_hwc = padded(pixels_hwc)
        height, width = whole_hwc.shape[:2]
        shown = decode_still(base, height // self.scale, width // self.scale)
        small, told = self._floats(np.array(shown.convert("RGB"))), self._told(shown, base)
        levels = torch.from_numpy(whole_hwc).permute(2, 0, 1)
        h, w = height // CELL, width // CELL
        symbols_chw = np.empty((self.enhancer.shape.side, h, w), dtype=np.int8)
        for tile in tiles(h, w, TILE, ENCODER_REACH):
            pixels = self._floats(tile.cut(levels, CELL).permute(1, 2, 0).numpy())
            seen = enlarged(tile.cut(small, CELL // self.scale), self.scale)
            y = tile.inner(self.enhancer.observer(pixels, seen, told), 1)[0]
            rounded = (y / self.step).round().clamp(-LARGEST, LARGEST)
            symbols_chw[:, tile.rows, tile.columns] = rounded.cpu().numpy()
        return symbols_chw

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage) -> Pixels:
        check_size(encoded.height, encoded.width)
        side_bytes, base = split(encoded.bitstream)
        if is_thin(encoded.height, encoded.width, CELL):
            if side_bytes:
                raise ValueError(f"{len(side_bytes)} side bytes for a picture thinner than {CELL} pixels")
            return self.decode_base(encoded)
        shown = self.base(encoded)
        small_hwc = np.array(shown.convert("RGB"))
        told = self._told(shown, base)
        height, width = (length + 2 * MARGIN * CELL for length in _padded_size(encoded.height, encoded.width))
        h, w = height // CELL, width // CELL
        small = self._floats(_mirrored(small_hwc, MARGIN * CELL // self.scale, (0, 1)))
        side = None
        if self.coder is not None:
            inner = h - 2 * MARGIN, w - 2 * MARGIN
            symbols = _mirrored(unpack_planes(self.coder, side_bytes, *inner, self._band), MARGIN, (1, 2))
            side = torch.from_numpy(symbols)[None].float().to(self.device) * self.step
        elif side_bytes:
            raise ValueError(f"{len(side_bytes)} side bytes for a network that knows of none")
        quarter, full = (torch.from_numpy(values).to(self.device) for values in noise(base, height, width))

        @lru_cache(maxsize=1)  # a small picture is one tile, which is begun once
        def begun(tile: Tile) -> Tensor:
            grain = normal(tile.cut(quarter, CELL // 4))[None, None]
            return self.enhancer.begun(tile.cut(small, CELL // self.scale), self.scale, told, grain)

        size = (1, self.enhancer.shape.coarse, 2 * h, 2 * w)
        coarse = torch.empty(size, device=self.device, memory_format=torch.channels_last)
        places = tiles(h, w, TILE, DRAWN_REACH)
        for tile in places:
            lowered = self.enhancer.lowered(begun(tile))
            coarse[..., tile.pixel_rows(2), tile.pixel_columns(2)] = tile.inner(lowered, 2)
        coarse = self.enhancer.thought(coarse, side, told)
        made = np.empty((height, width, 3), dtype=np.uint8)
        for tile in places:
            seen = tile.cut(small, CELL // self.scale)
            grain = normal(tile.cut(full, CELL))[None, None]
            drawn = self.enhancer.drawn(begun(tile), tile.cut(coarse, 2), seen, self.scale, told, grain)
            made[tile.pixel_rows(CELL), tile.pixel_columns(CELL)] = levels_of(tile.inner(drawn, CELL))
        del coarse  # so much memory is best gone before more is taken
        begun.cache_clear()
        edge = MARGIN * CELL
        made = np.ascontiguousarray(made[edge : height - edge, edge : width - edge])
        made = true_to_base(made, shown.convert("RGB"), self.scale)
        made = made[: encoded.height, : encoded.width]
        if shown.mode == "L":
            made = np.repeat(made.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
        return np.ascontiguousarray(made)


def _mirrored(values: NDArray[T], margin: int, axes: tuple[int, int]) -> NDArray[T]:
    """With a margin before and after along two axes; where that is more than there is, mirrored again and again."""
    margins = [(margin, margin) if axis in axes else (0, 0) for axis in range(values.ndim)]
    return np.pad(values, margins, "symmetric")


def _padded_size(height: int, width: int) -> tuple[int, int]:
    check_size(height, width)
    return height + -height % CELL, width + -width % CELL


def load_layered(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> LayeredCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    params = dict(spec.params)
    scale, quality, chroma, step = (params.pop(name, None) for name in PARAMS)
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected {', '.join(PARAMS)}")
    if type(scale) is not int or scale not in SCALES:
        raise ValueError(f"scale {scale!r}, expected one of {SCALES}")
    if type(quality) is not int or not 0 <= quality <= 99:
        raise ValueError(f"quality {quality!r}, expected 0 to 99")
    if type(step) is not int or not 10 <= step <= 1000:
        raise ValueError(f"step {step!r}, expected 10 to 1000")
    if chroma != "4:2:0" and chroma != "4:4:4":
        raise ValueError(f"chroma {chroma!r}, expected 4:2:0 or 4:4:4")
    (file,) = weight_files(spec, weights, 1)
    place = torch.device(device)
    enhancer = load_enhancer(file, place)
    coder = None if enhancer.entropy is None else load_coder(enhancer.entropy)
    known: Literal["4:2:0", "4:4:4"] = "4:2:0" if chroma == "4:2:0" else "4:4:4"
    return LayeredCodec(spec, scale, quality, known, step / 100, enhancer, coder, place)


def load_enhancer(file: Path, device: torch.device) -> Enhancer:
    return load_network(file, lambda shape: Enhancer(Shape(**shape)), device)
