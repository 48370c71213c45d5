"""The `layered` codec: an AV1 still at reduced size, and a network that draws what it leaves out.

    pixels ->[pad, 1/scale, Lanczos]-> small pixels ->[AV1]-> bitstream
    bitstream ->[AV1]-> small pixels ->[enhancer]-> pixels

The bitstream is the one of archiver/codecs/av1.py: without the network's weights it still decodes, with any AV1
decoder, to the small picture. The enhancer is one forward pass of a convolutional network at 1/4 and 1/8 of the
full size that ends in two doublings. It is ours; its parts are known ones: inverted residual blocks without
normalisation (after MobileNetV2; no statistics of the picture, so tiles equal the whole), two sub-pixel doublings (Shi
et al., CVPR 2016) that also see the enlarged base, noise inputs for texture (StyleGAN), and training by L1, LPIPS,
DISTS, a projected discriminator (Sauer et al., NeurIPS 2021), and the pattern that all cells of a batch repeat.

Parameters of the spec: scale (2, 4 or 8) and chroma as for `avif`; quality (libavif's), which the network is told.
The padding (edges repeated, to whole 8x8 blocks) makes `scale` exact. Noise comes from Philox keyed by a hash of
the bitstream: the same on every machine, whichever rows are restored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.av1 import decode_still, encode_still
from archiver.codecs.networks import levels_of, load_network, weight_files
from archiver.codecs.specs import check_spec
from archiver.codecs.tiles import tiles
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels
from pipelines.images import MAX_PIXELS

# Legend of suffixes: B batch, C channels; H, W pixels; h, w cells of 4x4 pixels; s small (base) pixels.

NAME = "layered"
VERSION = 1
SCALES = (2, 4, 8)
# aom's own scale from 0 (slow) to 10. Against 6, 4 takes five times as long and saves 8 % of the bytes at equal error;
# 2 takes three times as long again, for 3 %.
SPEED = 4
CELL = 8  # pixels: pictures are padded to whole cells of the coarsest level
# Pixels that one forward pass makes, and that it sees around them: no less than the network's receptive field,
# so that tiles join without seams: 168 with 16 coarse blocks at scale 8. A pass of 1,536 + 2 x 168 pixels a side takes
# about 1 GB.
TILE, MARGIN = 1536, 168
CALM = 32  # pixels: over squares of so many a side, colours are the base's


@dataclass(frozen=True)
class Shape:
    """Width and depth of the enhancer."""

    fine: int = 64  # channels at 1/4
    coarse: int = 128  # channels at 1/8
    fine_blocks: int = 2  # before and after the coarse level, each
    coarse_blocks: int = 8


def bent(x: Tensor) -> Tensor:
    """The networks' non-linearity: a leaky ReLU, half as costly on CPUs as SiLU."""
    return F.leaky_relu(x, 0.2)


class Block(nn.Module):
    """(B, C, h, w) -> the same: 1x1 to twice the channels, depthwise 3x3, 1x1; told the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.told = nn.Linear(condition, 2 * channels)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)
        with torch.no_grad():
            self.narrow.weight.mul_(0.3)

    def forward(self, x_bchw: Tensor, condition: Tensor) -> Tensor:
        wide = bent(self.widen(x_bchw) + self.told(condition)[:, :, None, None].to(x_bchw.dtype))
        out: Tensor = x_bchw + self.narrow(bent(self.mix(wide)))
        return out


class Enhancer(nn.Module):
    """Small pictures -> full ones: `forward` gives (B, 3, H, W) around [-1, 1], H and W multiples of 8."""

    CONDITION = 32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        fine, coarse, told = shape.fine, shape.coarse, self.CONDITION
        self.condition = nn.Sequential(nn.Linear(3, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.stems = nn.ModuleDict(
            {str(scale): nn.Conv2d((12 if scale == 2 else 3) + 1, fine, 3, padding=1) for scale in SCALES}
        )
        self.before = nn.ModuleList(Block(fine, told) for _ in range(shape.fine_blocks))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.inside = nn.ModuleList(Block(coarse, told) for _ in range(shape.coarse_blocks))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.ModuleList(Block(fine, told) for _ in range(shape.fine_blocks))
        self.double1 = nn.Conv2d(fine, 4 * 32, 1)
        self.at_half = nn.Conv2d(32 + 3, 32, 3, padding=1)
        self.double2 = nn.Conv2d(32, 4 * 16, 1)
        self.at_full = nn.Conv2d(16 + 3 + 1, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def forward(self, small: Tensor, scale: int, told: Tensor, noise_hw: Tensor, noise_HW: Tensor) -> Tensor:
        """`small` (B, 3, H/scale, W/scale) in [-1, 1]; `told` (B, 3), see `conditions`; noise (B, 1, …)."""
        condition = self.condition(told)
        x = F.pixel_unshuffle(small, 2) if scale == 2 else small
        if scale == 8:
            x = enlarged(small, 2)
        x = self.stems[str(scale)](torch.cat((x, noise_hw), 1))
        for block in self.before:
            x = block(x, condition)
        deep = self.down(x)
        for block in self.inside:
            deep = block(deep, condition)
        x = x + F.pixel_shuffle(self.up(deep), 2)
        for block in self.after:
            x = block(x, condition)
        x = bent(F.pixel_shuffle(self.double1(x), 2))
        x = bent(self.at_half(torch.cat((x, enlarged(small, scale // 2)), 1)))
        x = bent(F.pixel_shuffle(self.double2(x), 2))
        base = enlarged(small, scale)
        x = bent(self.at_full(torch.cat((x, base, noise_HW), 1)))
        out: Tensor = base + self.out(x).float()
        return out


def enlarged(small: Tensor, factor: int) -> Tensor:
    """Bicubic; (B, 3, s, s) -> `factor` times the size."""
    if factor == 1:
        return small
    return F.interpolate(small, scale_factor=factor, mode="bicubic", align_corners=False)


def conditions(
    scale: int, quality: int, bitstream_bytes: int, small_pixels: int
) -> tuple[float, float, float]:
    """What the network is told of a picture: scale, quality, and log2 of the bits that a small pixel took."""
    bits = 8 * bitstream_bytes / small_pixels
    return (float(np.log2(scale)) - 2, quality / 50 - 1, float(np.clip(np.log2(bits) / 4, -2, 2)))


def padded(pixels_hwc: Pixels) -> Pixels:
    """To whole cells, edges repeated below and to the right."""
    height, width = pixels_hwc.shape[:2]
    return np.pad(pixels_hwc, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")


def reduced(pixels_hwc: Pixels, scale: int) -> Image.Image:
    """Whole cells -> the small picture, 1/scale a side."""
    height, width = pixels_hwc.shape[:2]
    return Image.fromarray(pixels_hwc).resize((width // scale, height // scale), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class LayeredCodec:
    """A `Codec`; made by `load_layered`. Networks run in fp32, one picture at a time: batches change nothing."""

    spec: CodecSpec
    scale: int
    quality: int
    chroma: Literal["4:2:0", "4:4:4"]
    enhancer: Enhancer
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
        return decode_still(encoded.bitstream, height // self.scale, width // self.scale)

    def _encoded(self, picture: Picture) -> EncodedImage:
        pixels_hwc = picture.pixels_hwc
        height, width = pixels_hwc.shape[:2]
        _padded_size(height, width)
        small = reduced(padded(pixels_hwc), self.scale)
        grey = not np.any(pixels_hwc != pixels_hwc[..., :1])
        bitstream = encode_still(
            small.convert("L") if grey else small, "4:0:0" if grey else self.chroma, self.quality, SPEED
        )
        return EncodedImage(bitstream, picture.caption, height, width)

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage) -> Pixels:
        small = self.base(encoded)
        grey = small.mode == "L"
        base = torch.from_numpy(np.array(small.convert("RGB"))).to(self.device)
        base = (base.permute(2, 0, 1)[None].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        told = conditions(self.scale, self.quality, len(encoded.bitstream), small.height * small.width)
        height, width = small.height * self.scale, small.width * self.scale
        noises = [
            torch.from_numpy(values).to(self.device) for values in noise(encoded.bitstream, height, width)
        ]
        condition = torch.tensor([told], dtype=torch.float32, device=self.device)
        made = np.empty((height, width, 3), dtype=np.uint8)
        for tile in tiles(height // CELL, width // CELL, TILE // CELL, MARGIN // CELL):
            noise_hw, noise_HW = (
                normal(tile.cut(x, step))[None, None]
                for x, step in zip(noises, (CELL // 4, CELL), strict=True)
            )
            seen = tile.cut(base, CELL // self.scale)
            drawn = self.enhancer(seen, self.scale, condition, noise_hw, noise_HW)
            made[tile.pixel_rows(CELL), tile.pixel_columns(CELL)] = levels_of(tile.inner(drawn, CELL))
        made = true_to_base(made, small.convert("RGB"), self.scale)[: encoded.height, : encoded.width]
        if grey:
            made = np.repeat(made.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
        return np.ascontiguousarray(made)


def _padded_size(height: int, width: int) -> tuple[int, int]:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"a picture of {width} x {height} pixels, expected 1 to {MAX_PIXELS:,}")
    return height + -height % CELL, width + -width % CELL


def true_to_base(made_hwc: Pixels, small: Image.Image, scale: int) -> Pixels:
    """The picture with the base's own colours in the mean of each CALM x CALM pixels: networks drift."""
    height, width = made_hwc.shape[:2]
    drift = np.asarray(Image.fromarray(made_hwc).reduce(CALM)).astype(np.float32)
    drift -= np.asarray(small.reduce(CALM // scale)).astype(np.float32)
    cells = (0, 0, width / CALM, height / CALM)  # the last row and column of cells may not be whole
    for channel in range(3):
        calm = Image.fromarray(np.ascontiguousarray(drift[..., channel]))
        smooth = np.asarray(calm.resize((width, height), Image.Resampling.BILINEAR, box=cells))
        corrected = np.rint(made_hwc[..., channel] - smooth)
        made_hwc[..., channel] = np.clip(corrected, 0, 255).astype(np.uint8)
    return made_hwc


def noise(bitstream: bytes, height: int, width: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Sums of four random bytes for each cell of 4x4 pixels, and for each pixel; see `normal`."""
    key = int.from_bytes(hashlib.blake2b(bitstream, digest_size=16).digest(), "little")
    cells, pixels = height // 4 * (width // 4), height * width
    # A bit generator's raw numbers stay the same for ever; the distributions that NumPy makes of them may not.
    raw = np.random.Philox(key=key).random_raw(-(-(cells + pixels) // 2)).astype("<u8").view("<u4")
    sums = sum((raw >> shift & 255).astype(np.int16) for shift in (0, 8, 16, 24))
    assert isinstance(sums, np.ndarray)
    return sums[:cells].reshape(height // 4, -1), sums[cells : cells + pixels].reshape(height, -1)


def normal(sums: Tensor) -> Tensor:
    """Nearly normal numbers of unit variance from sums of four bytes (mean 510, variance 4 (256^2 - 1) / 12)."""
    unit: Tensor = (sums.float() - 510) / (65535 / 3) ** 0.5
    return unit


def load_layered(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> LayeredCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    params = dict(spec.params)
    scale, quality, chroma = (params.pop(name, None) for name in ("scale", "quality", "chroma"))
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected scale, quality and chroma")
    if type(scale) is not int or scale not in SCALES:
        raise ValueError(f"scale {scale!r}, expected one of {SCALES}")
    if type(quality) is not int or not 0 <= quality <= 99:
        raise ValueError(f"quality {quality!r}, expected 0 to 99")
    if chroma != "4:2:0" and chroma != "4:4:4":
        raise ValueError(f"chroma {chroma!r}, expected 4:2:0 or 4:4:4")
    (file,) = weight_files(spec, weights, 1)
    place = torch.device(device)
    enhancer = load_enhancer(file, place)
    return LayeredCodec(spec, scale, quality, "4:2:0" if chroma == "4:2:0" else "4:4:4", enhancer, place)


def load_enhancer(file: Path, device: torch.device) -> Enhancer:
    return load_network(file, lambda shape: Enhancer(Shape(**shape)), device)
