"""The autoencoder that the embedded diffusion codecs share: pixels <-> 16 numbers for each cell of 16x16 pixels.

The networks are those of the `gan` codec without its quantiser. Latents are bounded, and noise was added to them in
training, so that nearby latents mean nearby pictures; `mean` and `scale` then make each of their channels one of zero
mean and unit variance over photographs, as diffusion wants it.

Two sets of weights are trained: `autoencoder-mse` for the squared error alone, and from there `autoencoder`, whose
pictures are sharp (archiver/training/autoencoder.py).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import noise, normal
from archiver.codecs.gan_networks import (
    CELL,
    DRAWN_REACH,
    ENCODER_REACH,
    THOUGHT_REACH,
    Encoder,
    Generator,
    Shape,
)
from archiver.codecs.networks import levels_of, load_network
from archiver.codecs.tiles import tiles
from pipelines.codec import Pixels

LATENT = 16  # channels
BOUND = 3.0
TILE = 64  # cells a side that are handled at once: about 0.5 GB
NOISE_PLANES = 16  # of a cell: one number for each 4x4 pixels

SHAPE = Shape(channels=LATENT)


class Autoencoder(nn.Module):
    """Both networks, and what latents are normalised by."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.generator = Generator(shape, shape.channels + NOISE_PLANES)
        # Set after training, see archiver.training.autoencoder.fitted.
        self.register_buffer("mean", torch.zeros(shape.channels))
        self.register_buffer("scale", torch.ones(shape.channels))

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 16 -> (B, 16, H/16, W/16)."""
        bounded = BOUND * torch.tanh(self.encoder(pixels).float() / BOUND)
        normalised: Tensor = (bounded - self._of("mean")) / self._of("scale")
        return normalised

    def decode(self, latents: Tensor, noise_quarter: Tensor, noise_HW: Tensor) -> Tensor:
        """Latents -> (B, 3, H, W) around [-1, 1]; unit noise (B, 1, H/4, W/4) and (B, 1, H, W), or zeros."""
        made: Tensor = self.generator(
            self.planes(latents, noise_quarter), _untold(latents), noise_quarter, noise_HW
        )
        return made

    def planes(self, latents: Tensor, noise_quarter: Tensor) -> Tensor:
        """What the generator sees at 1/16."""
        bounded = latents * self._of("scale") + self._of("mean")
        return torch.cat((bounded, F.pixel_unshuffle(noise_quarter, 4)), 1)

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name)[None, :, None, None]


def _untold(latents: Tensor) -> Tensor:
    """The generator's condition, a rate, means nothing here."""
    return torch.zeros(latents.shape[0], 1, device=latents.device)


def load_autoencoder(file: Path, device: torch.device) -> Autoencoder:
    """Frozen, in fp32; ValueError for a file of another network."""
    return load_network(file, lambda shape: Autoencoder(Shape(**shape)), device)


def encoded_latents(network: Autoencoder, pixels_hwc: Pixels) -> Tensor:
    """One picture of whole cells, (16 h, 16 w, 3) -> (1, 16, h, w), in tiles that equal the whole."""
    device = network.get_buffer("mean").device
    pixels = torch.from_numpy(pixels_hwc).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    h, w = pixels_hwc.shape[0] // CELL, pixels_hwc.shape[1] // CELL
    latents = torch.empty(1, network.shape.channels, h, w, device=device)
    for tile in tiles(h, w, TILE, ENCODER_REACH):
        latents[:, :, tile.rows, tile.columns] = tile.inner(network.encode(tile.cut(pixels, CELL)), 1)
    return latents


def decoded_levels(network: Autoencoder, latents: Tensor, bitstream: bytes) -> Pixels:
    """One picture (1, 16, h, w) -> (16 h, 16 w, 3), in tiles that equal the whole; noise is keyed by the bitstream."""
    h, w = latents.shape[2:]
    quarter, full = (
        torch.from_numpy(values).to(latents.device)[None, None]
        for values in noise(bitstream, h * CELL, w * CELL)
    )
    planes, told = network.planes(latents, normal(quarter)), _untold(latents)
    thought = torch.empty(1, 4 * network.shape.width + network.shape.channels, h, w, device=latents.device)
    for tile in tiles(h, w, 4 * TILE, THOUGHT_REACH):
        part = network.generator.thought(tile.cut(planes, 1), told)
        thought[:, :, tile.rows, tile.columns] = tile.inner(part, 1)
    made = np.empty((h * CELL, w * CELL, 3), dtype=np.uint8)
    for tile in tiles(h, w, TILE, DRAWN_REACH):
        noises = normal(tile.cut(quarter, CELL // 4)), normal(tile.cut(full, CELL))
        part = network.generator.drawn(tile.cut(thought, 1), told, *noises)
        made[tile.pixel_rows(CELL), tile.pixel_columns(CELL)] = levels_of(tile.inner(part, CELL))
    return made
