"""The `layered` codec: an AV1 still at reduced size, and a network that draws what it leaves out.

    pixels ->[pad, 1/scale, Lanczos]-> small pixels ->[AV1]-> base
    pixels, base ->[observer, 1/16]-> y ->[/ step, round]-> side symbols ->[entropy model, range coder]-> side bitstream
    pixels, base, side symbols ->[descent]-> style ->[range coder]-> its beginning
    base ->[AV1]-> small pixels; small pixels, side symbols * step, style ->[enhancer]-> pixels

The base is a bitstream of archiver/codecs/av1.py: without the network's weights it still decodes, with any AV1 decoder,
to the small picture. Side symbols tell the enhancer what the base does not show: what a surface was like; the style,
some numbers for the whole picture, what all of it is like. The enhancer is one forward pass. All is ours; its parts are
known ones: the networks of layered_networks.py, the entropy model in whole numbers of latent_codec.py, noise inputs for
texture (StyleGAN), and training by L1, LPIPS, DISTS, a projected discriminator (Sauer et al., NeurIPS 2021), the
pattern that all cells of a batch repeat, and side bits.

The bitstream, all of it:

    byte 0      n, the bytes of the side bitstream; 255: the next three bytes are n, big-endian
    n bytes     style and side symbols: 32-bit words of a range coder (constriction), big-endian, without the zero
                bytes at the end
    the rest    the base, see av1.py

Parameters of the spec: scale (2, 4 or 8) and chroma as for `avif`; quality (libavif's), which the networks are told;
step, in hundredths: a larger one makes side symbols coarser and fewer side bits; style_steps, if bitstreams tell a
style: how long the encoder looks for it.
The padding (edges repeated, to whole cells of 16x16) makes `scale` exact. A picture that is thinner than a cell is
stretched to one instead (thin.py), and is its base alone, of a good quality: there is nothing around to draw from. The
decoder mirrors base and side symbols MARGIN cells beyond the edges, draws that too, and cuts it off. Noise, of that
size, comes from Philox keyed by a hash of the base: the same on every machine, whichever rows are restored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from archiver.codecs.av1 import decode_still
from archiver.codecs.drawing import enlarged, true_to_base
from archiver.codecs.latent_model import LARGEST
from archiver.codecs.layered_base import based, join, padded, reduced, split
from archiver.codecs.layered_drawing import TILE, Given, draw, floats, given_of
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import CELL, ENCODER_REACH, SCALES, Shape, conditions
from archiver.codecs.layered_side import Side, SideCoder, load_side_coder
from archiver.codecs.layered_style import find_style
from archiver.codecs.networks import load_network, weight_files
from archiver.codecs.specs import check_size, check_spec
from archiver.codecs.thin import is_thin, shrunk, stretched
from archiver.codecs.tiles import tiles
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

# Legend of suffixes: B batch (always 1 here), C channels; H, W pixels, padded; h, w cells of CELL x CELL pixels.

NAME = "layered"
VERSION = 1
PARAMS = ("scale", "quality", "chroma", "step", "style_steps")
MOST_STYLE_STEPS = 200
# At least, of the base of a thin picture, which is all there is of it: rows of a photograph at `layered-0.012` take 86
# to 98 bytes instead of 41 to 43, and are 4.5 to 5.5 dB better.
THIN_QUALITY = 40


@dataclass(frozen=True)
class LayeredCodec:
    """A `Codec`; made by `load_layered`. Networks run in fp32, one picture at a time: batches change nothing."""

    spec: CodecSpec
    scale: int
    quality: int
    chroma: Literal["4:2:0", "4:4:4"]
    step: float
    enhancer: Enhancer
    coder: SideCoder | None  # where the network has side symbols
    device: torch.device
    style_steps: int = 0  # of the encoder's descent to a style; 0: bitstreams tell none
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
            side = self.coder.pack(self.observed(pixels_hwc, base), self.scale, self.quality)
        return EncodedImage(join(side, base), picture.caption, height, width)

    def _based(self, pixels_hwc: Pixels, quality: int) -> bytes:
        small = reduced(padded(pixels_hwc), self.scale)
        if np.any(pixels_hwc != pixels_hwc[..., :1]):
            return based(small, self.chroma, quality)
        return based(small.convert("L"), "4:0:0", quality)

    def _told(self, small: Image.Image, base: bytes) -> Tensor:
        told = conditions(self.scale, self.quality, len(base), small.height * small.width)
        return torch.tensor([told], dtype=torch.float32, device=self.device)

    def observed(self, pixels_hwc: Pixels, base: bytes | None = None) -> Side:
        """Of a picture; `base` as `encode` makes it, where it is there already."""
        base = base or self._based(pixels_hwc, self.quality)
        whole_hwc = padded(pixels_hwc)
        height, width = whole_hwc.shape[:2]
        shown = decode_still(base, height // self.scale, width // self.scale)
        symbols_chw = self._symbols(whole_hwc, base, shown)
        return Side(self._style(whole_hwc, base, shown, symbols_chw), symbols_chw)

    @torch.inference_mode()
    def _symbols(self, whole_hwc: Pixels, base: bytes, shown: Image.Image) -> NDArray[np.int8]:
        assert self.enhancer.observer is not None
        small, told = floats(np.array(shown.convert("RGB")), self.device), self._told(shown, base)
        levels = torch.from_numpy(whole_hwc).permute(2, 0, 1)
        h, w = (length // CELL for length in whole_hwc.shape[:2])
        symbols_chw = np.empty((self.enhancer.shape.side, h, w), dtype=np.int8)
        for tile in tiles(h, w, TILE, ENCODER_REACH):
            pixels = floats(tile.cut(levels, CELL).permute(1, 2, 0).numpy(), self.device)
            seen = enlarged(tile.cut(small, CELL // self.scale), self.scale)
            y = tile.inner(self.enhancer.observer(pixels, seen, told), 1)[0]
            rounded = (y / self.step).round().clamp(-LARGEST, LARGEST)
            symbols_chw[:, tile.rows, tile.columns] = rounded.cpu().numpy()
        return symbols_chw

    def _style(
        self, whole_hwc: Pixels, base: bytes, shown: Image.Image, symbols_chw: NDArray[np.int8]
    ) -> NDArray[np.int8]:
        if not self.style_steps:
            return np.empty(0, dtype=np.int8)
        return find_style(self.enhancer, self._given(base, shown, symbols_chw), whole_hwc, self.style_steps)

    def _given(self, base: bytes, shown: Image.Image, symbols_chw: NDArray[np.int8] | None) -> Given:
        return given_of(base, shown, self._told(shown, base), symbols_chw, self.scale, self.step)

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage) -> Pixels:
        check_size(encoded.height, encoded.width)
        side_bytes, base = split(encoded.bitstream)
        if is_thin(encoded.height, encoded.width, CELL):
            if side_bytes:
                raise ValueError(f"{len(side_bytes)} side bytes for a picture thinner than {CELL} pixels")
            return self.decode_base(encoded)
        shown = self.base(encoded)
        style, symbols_chw = np.empty(0, dtype=np.int8), None
        if self.coder is not None:
            h, w = (length // CELL for length in _padded_size(encoded.height, encoded.width))
            side = self.coder.unpack(side_bytes, h, w, self.scale, self.quality)
            style, symbols_chw = side.style, side.symbols_chw
        elif side_bytes:
            raise ValueError(f"{len(side_bytes)} side bytes for a network that knows of none")
        made = draw(self.enhancer, self._given(base, shown, symbols_chw), style)
        made = true_to_base(made, shown.convert("RGB"), self.scale)
        made = made[: encoded.height, : encoded.width]
        if shown.mode == "L":
            made = np.repeat(made.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
        return np.ascontiguousarray(made)


def _padded_size(height: int, width: int) -> tuple[int, int]:
    check_size(height, width)
    return height + -height % CELL, width + -width % CELL


def load_layered(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> LayeredCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    params = dict(spec.params)
    scale, quality, chroma, step, style_steps = (params.pop(name, None) for name in PARAMS)
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected {', '.join(PARAMS)}")
    if type(scale) is not int or scale not in SCALES:
        raise ValueError(f"scale {scale!r}, expected one of {SCALES}")
    if type(quality) is not int or not 0 <= quality <= 99:
        raise ValueError(f"quality {quality!r}, expected 0 to 99")
    if type(step) is not int or not 10 <= step <= 1000:
        raise ValueError(f"step {step!r}, expected 10 to 1000")
    if style_steps is not None and (type(style_steps) is not int or not 1 <= style_steps <= MOST_STYLE_STEPS):
        raise ValueError(f"style_steps {style_steps!r}, expected 1 to {MOST_STYLE_STEPS}, or none")
    if chroma != "4:2:0" and chroma != "4:4:4":
        raise ValueError(f"chroma {chroma!r}, expected 4:2:0 or 4:4:4")
    (file,) = weight_files(spec, weights, 1)
    place = torch.device(device)
    enhancer = load_enhancer(file, place)
    styles = enhancer.styles if style_steps else None
    coder = None if enhancer.entropy is None else load_side_coder(enhancer.entropy, styles, enhancer.shape)
    known: Literal["4:2:0", "4:4:4"] = "4:2:0" if chroma == "4:2:0" else "4:4:4"
    if style_steps and not enhancer.shape.style:
        raise ValueError(f"style_steps {style_steps}, but the weights know no style")
    return LayeredCodec(spec, scale, quality, known, step / 100, enhancer, coder, place, style_steps or 0)


def load_enhancer(file: Path, device: torch.device) -> Enhancer:
    return load_network(file, lambda shape: Enhancer(Shape(**shape)), device)
