"""The `sprdiff` codec: three encoders, few symbols, a coarse picture, and one step of diffusion that it guides.

                 .-[autoencoder's encoder]-.
    pixels ->[pad]-[encoder for the squared error]-[fuse]->[analysis, 1/32]-> y ->[round]-> symbols ->[bits]-> bitstream
                 '-[student of a classifier]-'
    bitstream -> symbols ->[reconstruction]-> coarse picture at 1/4, and what symbols say beyond it
    coarse picture ->[autoencoder's encoder]-> + what symbols say beyond it = estimate of the latents
    coarse picture -> spatial features, tokens of what it shows
    estimate, noise, features, tokens ->[UNet, one step]-> latents ->[autoencoder's decoder]-> pixels

After SPRDiff (Wei et al., arXiv 2606.01608), of which no code or weights are published. Known of it are: the triple
encoder (a frozen VAE's, a distortion-oriented and a semantic-oriented one) whose features are fused before the latent
codec; the distortion-aware reconstruction module, whose coarse picture gives semantic-level and pixel-level conditions
to the diffusion UNet; a one-step diffusion decoder. All else is a guess, from the closest published designs:
- the distortion-oriented encoder is that of an autoencoder trained for the squared error alone; the semantic-oriented
  one a small network distilled from EfficientNet-Lite0 (foundation: an ELIC-like transform, and DINOv2);
- alignment: a 1x1 convolution for each encoder, whose outputs are summed; symbols lie at 1/32 (as in AEIC, where that
  was best below 0.05 bpp);
- latent codec: a context model without hyper-latents (latent_codec.py), gains for each rate (gained VAE, Cui et al.,
  CVPR 2021), prices of bits that are steered so that each rate takes its bits, and rate annealing (SODEC);
- the coarse picture is made at 1/4 of the size: at these rates it holds nothing finer; its last layers see it as
  such, and take the blocks of the symbols' grid away;
- semantic-level condition: the student's features of the coarse picture, pooled to tokens for cross-attention (SODEC:
  ViT features); pixel-level condition: convolutions of the coarse picture at the latents' grid, added behind the
  UNet's first convolution;
- the UNet starts not from pure noise, but from a noised estimate of the latents (AEIC): those of the coarse picture,
  enlarged, and a difference that the symbols give;
- training leaves each branch out in 10 % of the pictures, and learns what to put in its place, so that one network
  tells what each branch is worth (tests/measure/sprdiff_ablation.py);
- colours: over squares of 32 pixels their means are the coarse picture's.

The bitstream, all of it:

    byte 0      1
    byte 1..    32-bit words of a range coder (constriction), big-endian, without the zero bytes at the end: the symbols

Width and height, to whole cells of 32x32 pixels, are the caller's; shorter sides are stretched to one (thin.py). Noise
comes from Philox keyed by a hash of the bitstream. The parameter of the spec is `rate`, 0 being the lowest. Weights are
three files: the codec's own, the autoencoder, and the autoencoder for the squared error (foundation: the first one
holds all).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from archiver.codecs.autoencoder import Autoencoder, decoded_levels, load_autoencoder
from archiver.codecs.blending import Area, blended
from archiver.codecs.drawing import EVERYWHERE, noise, normal, true_to_base
from archiver.codecs.latent_codec import LatentCoder, load_coder, pack_planes, unpack_planes
from archiver.codecs.latent_model import whole
from archiver.codecs.networks import levels_of, load_network, weight_files
from archiver.codecs.specs import check_size, check_spec
from archiver.codecs.sprdiff_networks import Eyes, Latents, Sprdiff, begun
from archiver.codecs.sprdiff_shape import BRANCHES, CELL, COARSE, GRID, Shape
from archiver.codecs.thin import decode_shrunk, encode_stretched
from archiver.codecs.tiles import tiles
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels

# Legend of suffixes: B batch (always 1 here), C channels; H, W pixels, padded; h, w cells of 32x32 pixels.

NAME = "sprdiff"
VERSION = 1
BEGIN = 1  # byte 0
TILE, REACH = 64, 8  # features of 16x16 pixels that encoders make at once, and that they see around them


def padded(pixels_hwc: Pixels) -> Pixels:
    """To whole cells, edges repeated below and to the right."""
    height, width = pixels_hwc.shape[:2]
    return np.pad(pixels_hwc, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge")


@torch.inference_mode()
def seen_by(network: Sprdiff, eyes: Eyes, whole_hwc: Pixels, device: torch.device) -> tuple[Tensor, ...]:
    """What the three encoders see in a picture of whole cells, made in tiles."""
    pixels = torch.from_numpy(whole_hwc).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    encoders = (eyes.latents.encode, eyes.distortion.encode, network.semantic)
    return tuple(in_tiles(encode, pixels) for encode in encoders)


def in_tiles(encode: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Features of pixels (1, 3, H, W); tiles equal the whole where networks see no further than REACH."""
    h, w = pixels.shape[2] // GRID, pixels.shape[3] // GRID
    rows = []
    for tile in tiles(h, w, TILE, REACH):
        features = encode(tile.cut(pixels, GRID))
        step = features.shape[3] * GRID // ((tile.seen_right - tile.seen_left) * GRID)
        rows.append((tile, tile.inner(features, step), step))
    step = rows[0][2]
    joined = torch.empty(1, rows[0][1].shape[1], h * step, w * step, device=pixels.device)
    for tile, part, _ in rows:
        joined[:, :, tile.pixel_rows(step), tile.pixel_columns(step)] = part
    return joined


@dataclass(frozen=True)
class SprdiffCodec:
    """A `Codec`; made by `load_sprdiff`. Networks run in fp32, one picture at a time: batches change nothing."""

    spec: CodecSpec
    rate: int
    network: Sprdiff
    eyes: Eyes
    coder: LatentCoder
    device: torch.device
    reads_caption: bool = False
    batch: int = 1
    left_out: frozenset[str] = frozenset()  # of BRANCHES: what each is worth can be measured so

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        return [encode_stretched(self._encoded, picture, CELL) for picture in pictures]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        return [decode_shrunk(self._decoded, image, CELL) for image in encoded]

    def decode_coarse(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        """The pictures that guide the denoiser, enlarged: all that symbols say, and nothing invented; fast."""
        return [decode_shrunk(self._enlarged, image, CELL) for image in encoded]

    def _encoded(self, picture: Picture) -> EncodedImage:
        height, width = picture.pixels_hwc.shape[:2]
        features = seen_by(self.network, self.eyes, padded(picture.pixels_hwc), self.device)
        bitstream = self.pack(self.symbols(features))
        return EncodedImage(bitstream, picture.caption, height, width)

    @torch.inference_mode()
    def symbols(self, features: Sequence[Tensor]) -> NDArray[np.int8]:
        """What `seen_by` gives -> (C, h, w)."""
        y = self.network.analysed(features, *self._told())
        symbols: NDArray[np.int8] = whole(y)[0].round().cpu().numpy().astype(np.int8)
        return symbols

    def pack(self, symbols_chw: NDArray[np.int8]) -> bytes:
        """Symbols -> bitstream, checked to say the same."""
        return bytes([BEGIN]) + pack_planes(self.coder, symbols_chw, self.rate)

    def unpack(self, bitstream: bytes, h: int, w: int) -> NDArray[np.int8]:
        """Inverse of `pack`, of h x w cells; ValueError where a bitstream cannot be one of this codec."""
        if not bitstream or bitstream[0] != BEGIN:
            raise ValueError(
                f"a bitstream that begins with {bitstream[:1].hex() or 'nothing'}, expected byte 01"
            )
        return unpack_planes(self.coder, bitstream[1:], h, w, self.rate)

    @torch.inference_mode()
    def reconstructed(self, encoded: EncodedImage) -> tuple[Tensor, Tensor]:
        """What symbols say of the latents beyond the coarse picture, and that picture at 1/4."""
        symbols = self.unpack(encoded.bitstream, *_cells(encoded.height, encoded.width))
        rates, _ = self._told()
        return self.network.reconstructed(torch.from_numpy(symbols).to(self.device)[None].float(), rates)

    def _enlarged(self, encoded: EncodedImage) -> Pixels:
        _, coarse = self.reconstructed(encoded)
        return np.ascontiguousarray(levels_of(begun(coarse))[: encoded.height, : encoded.width])

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage) -> Pixels:
        beyond, coarse = self.reconstructed(encoded)
        estimate = self.latents_of(begun(coarse)) + beyond
        latents = self._drawn(estimate, coarse, encoded.bitstream)
        if isinstance(self.eyes.latents, Autoencoder):
            made = decoded_levels(self.eyes.latents, latents, encoded.bitstream)
        else:
            made = self._shown(self.eyes.latents, latents)
        # `layered` looks for grids area by area; what is archived by this codec keeps the pictures that it had.
        made = true_to_base(made, Image.fromarray(levels_of(coarse)), COARSE, EVERYWHERE, chance=64)
        return np.ascontiguousarray(made[: encoded.height, : encoded.width])

    def latents_of(self, pixels: Tensor) -> Tensor:
        """Pixels (1, 3, H, W) in [-1, 1], whole cells -> the autoencoder's latents (1, C, H/stride, W/stride)."""
        encode = self.eyes.latents.encode
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if isinstance(self.eyes.latents, Autoencoder):
            return in_tiles(encode, pixels)
        # One that is not ours sees all of what it is given: its tiles do not equal the whole, and are blended.
        height, width = pixels.shape[2:]
        return blended(height, width, self.network.shape.stride, lambda area: encode(area.cut(pixels, 1)))

    def _drawn(self, estimate: Tensor, coarse: Tensor, bitstream: bytes) -> Tensor:
        """The denoiser's latents, of tiles that are drawn apart and blended."""
        step, rates_there = self.network.shape.stride, self._told()
        height, width = coarse.shape[2] * COARSE, coarse.shape[3] * COARSE
        # One number for each 4x4 pixels makes as many a latent as it has channels, at both strides.
        quarter, _ = noise(b"latents" + bitstream, height, width)
        grains = normal(torch.from_numpy(quarter).to(self.device))[None, None]
        grains = F.pixel_unshuffle(grains, step // 4)

        def draw(area: Area) -> Tensor:
            cut = (area.cut(estimate, step), area.cut(coarse, COARSE), area.cut(grains, step))
            return self.network.drawn(*cut, *rates_there)

        return blended(height, width, step, draw)

    def _shown(self, autoencoder: Latents, latents: Tensor) -> Pixels:
        """What an autoencoder that is not ours makes of latents, in tiles that are blended, without noise."""
        step = self.network.shape.stride

        def draw(area: Area) -> Tensor:
            size = area.bottom - area.top, area.right - area.left
            quarter = latents.new_zeros(1, 1, size[0] // 4, size[1] // 4)
            return autoencoder.decode(area.cut(latents, step), quarter, latents.new_zeros(1, 1, *size))

        return levels_of(blended(latents.shape[2] * step, latents.shape[3] * step, 1, draw))

    def _told(self) -> tuple[Tensor, Tensor]:
        """The rate, and which branches are there, of a batch of one."""
        there = [[branch not in self.left_out for branch in BRANCHES]]
        return torch.tensor([self.rate], device=self.device), torch.tensor(there, device=self.device)


def _cells(height: int, width: int) -> tuple[int, int]:
    check_size(height, width)
    return -(-height // CELL), -(-width // CELL)


def load_sprdiff(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> SprdiffCodec:
    """The codec of a spec; one that this program does not know is refused."""
    check_spec(spec, NAME, VERSION)
    params = dict(spec.params)
    rate = params.pop("rate", None)
    if params:
        raise ValueError(f"codec {NAME} with parameters {sorted(params)}, expected rate")
    if not spec.weights:
        raise ValueError(f"codec {NAME} without weights, expected 3, or 1")
    files = weight_files(spec, weights, len(spec.weights))
    place = torch.device(device)
    network = load_network(files[0], lambda shape: Sprdiff(Shape(**shape)), place)
    if type(rate) is not int or not 0 <= rate < network.shape.rates:
        raise ValueError(f"rate {rate!r}, expected 0 to {network.shape.rates - 1}")
    return SprdiffCodec(
        spec, rate, network, load_eyes(network, files[1:], place), load_coder(network.entropy), place
    )


def load_eyes(network: Sprdiff, files: Sequence[Path], device: torch.device) -> Eyes:
    """The frozen networks: from the two files of autoencoders, or, at foundation size, of the codec's own weights."""
    expected = 0 if network.shape.foundation else 2
    if len(files) != expected:
        raise ValueError(
            f"codec {NAME} with {1 + len(files)} weights, expected {1 + expected} for this network"
        )
    if network.shape.foundation:
        return network.own_eyes()
    perceptual, squared = (load_autoencoder(file, device) for file in files)
    return Eyes(perceptual, squared)
