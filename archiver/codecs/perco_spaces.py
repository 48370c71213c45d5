"""Where the `perco` codec's diffusion happens: pictures <-> latents, and captions <-> tokens and text.

A `Space` is a frozen autoencoder, a `Reader` what reads captions. Embedded presets: the shared autoencoder, 16 numbers
for 16x16 pixels, and the codec's own text encoder. Foundation presets: Stable Diffusion's, 4 numbers for 8x8 pixels, in
fp32 or bf16 (never fp16, whose range its autoencoder leaves: black pictures), and CLIP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from archiver.codecs.autoencoder import Autoencoder, decoded_levels, encoded_latents
from archiver.codecs.gan_networks import CELL
from archiver.codecs.networks import levels_of
from archiver.codecs.perco_text import WordEncoder, Words
from pipelines.codec import Pixels

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

# Legend of suffixes: B batch, C channels, E of text; H, W pixels; h, w cells; n tokens.

SD_CELL, SD_LATENT = 8, 4
SD_SCALE = 0.18215  # of Stable Diffusion's latents, for unit variance
SD_TILE = 64  # cells a side that its autoencoder makes at once in large pictures


class Space(Protocol):
    """A frozen autoencoder."""

    @property
    def cell(self) -> int:
        """Pixels a side of a latent's cell."""

    def to(self, device: torch.device) -> None: ...

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of whole cells -> latents (B, C, h, w) of about unit variance, fp32."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B, 3, H, W) around [-1, 1]; with slopes."""

    def latents_of(self, pixels_hwc: Pixels) -> Tensor:
        """One picture of whole cells and any size -> (1, C, h, w)."""

    def levels_of(self, latents: Tensor, bitstream: bytes) -> Pixels:
        """One picture's latents -> its pixels; any noise is keyed by the bitstream."""


class Reader(Protocol):
    """Captions -> what the UNet sees of them."""

    def shortened(self, caption: str) -> str:
        """As much of a caption as is read."""

    def filled(self, captions: Sequence[str]) -> Tensor:
        """Tokens (B, n); ValueError for a caption that is not `shortened`."""

    def embedded(self, tokens_bn: Tensor) -> Tensor:
        """Tokens -> (B, n, E)."""


@dataclass(frozen=True)
class EmbeddedSpace:
    """The autoencoder of the embedded codecs."""

    autoencoder: Autoencoder
    cell: int = CELL

    def to(self, device: torch.device) -> None:
        self.autoencoder.to(device)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode(pixels).float()

    def decode(self, latents: Tensor) -> Tensor:
        count, _, h, w = latents.shape
        quarter, full = (torch.zeros(count, 1, h * side, w * side, device=latents.device) for side in (4, 16))
        return self.autoencoder.decode(latents, quarter, full)

    def latents_of(self, pixels_hwc: Pixels) -> Tensor:
        return encoded_latents(self.autoencoder, pixels_hwc)

    def levels_of(self, latents: Tensor, bitstream: bytes) -> Pixels:
        return decoded_levels(self.autoencoder, latents, bitstream)


class StableDiffusionSpace:
    """The autoencoder of Stable Diffusion, whose most likely latents stand for a picture; it draws nothing."""

    cell = SD_CELL

    def __init__(self, autoencoder: "AutoencoderKL", precision: torch.dtype = torch.float32) -> None:
        self.autoencoder = autoencoder
        nn.Module.to(autoencoder, precision)
        # Its attention and group norms see the whole picture, so that tiles never equal it: blended over a quarter.
        autoencoder.use_tiling = True
        autoencoder.tile_latent_min_size = SD_TILE
        autoencoder.tile_sample_min_size = SD_TILE * SD_CELL

    def to(self, device: torch.device) -> None:
        nn.Module.to(self.autoencoder, device)

    def encode(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self.autoencoder.encode(pixels.to(self._type)).latent_dist.mode()
        return latents.float() * SD_SCALE

    def decode(self, latents: Tensor) -> Tensor:
        made: Tensor = self.autoencoder.decode((latents / SD_SCALE).to(self._type)).sample
        return made.float()

    def latents_of(self, pixels_hwc: Pixels) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(pixels_hwc)).to(self.autoencoder.device)
        return self.encode(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)

    def levels_of(self, latents: Tensor, bitstream: bytes) -> Pixels:
        return levels_of(self.decode(latents))

    @property
    def _type(self) -> torch.dtype:
        return self.autoencoder.dtype


@dataclass(frozen=True)
class WordReader:
    """A list of words, and the encoder that was trained with it."""

    words: Words
    encoder: WordEncoder

    def shortened(self, caption: str) -> str:
        return self.words.shortened(caption)

    def filled(self, captions: Sequence[str]) -> Tensor:
        return self.words.filled(captions)

    def embedded(self, tokens_bn: Tensor) -> Tensor:
        embedded: Tensor = self.encoder(tokens_bn.to(self.encoder.places.device))
        return embedded
