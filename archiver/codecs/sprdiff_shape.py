"""The sizes of the `sprdiff` codec, embedded and on published networks."""

from dataclasses import dataclass

CELL = 32  # pixels of a symbol
COARSE = 4  # the coarse picture is made at 1/4
CONDITION = 32
STRIDE = 8.0  # of a gain's logarithm: bits follow their price eight times as fast as weights learn
WIDEST = 2.0  # logarithm of the largest gain, and minus that of the smallest
BRANCHES = ("distortion", "semantic", "pixel", "meaning")  # the last two: what the coarse picture tells
GRID = 16  # pixels of a feature


@dataclass(frozen=True)
class Shape:
    """All sizes; the defaults are `sprdiff-tiny`."""

    latent: int = 16  # channels of the autoencoder's latents
    stride: int = 16  # pixels of a latent
    distortion: int = 16  # channels of the distortion-oriented features
    semantic: int = 96  # ... of the semantic-oriented ones
    channels: int = 48  # of symbols
    slices: int = 3
    rates: int = 4
    context: int = 128  # width of the entropy model
    width: int = 128  # channels at 1/16
    deep: int = 208  # ... at 1/32
    blocks: int = 4  # at 1/32, each way
    pixel: int = 32  # channels of pixel-level guidance
    unet: int = 64  # channels at the UNet's finest level
    unet_deep: int = 128  # ... at all others; 0: doubling, to four times
    levels: int = 2
    layers: int = 1  # residual blocks a level
    cross: int = 128  # channels of tokens
    head: int = 32  # channels of an attention head
    tokens: int = 4  # a side
    step: int = 100  # of Stable Diffusion's 1,000: how much noise the one step begins with
    # 1: latents, semantics and UNet are those of published models (sprdiff_foundation.py), of these sizes
    foundation: int = 0
    rank: int = 0  # of the updates of the UNet's attention
    vae: int = 0  # channels at full size
    dino_layers: int = 0
    dino_side: int = 0

    @property
    def fold(self) -> int:
        """Latents to a feature, a side."""
        return GRID // self.stride


# `sprdiff-sd`: Stable Diffusion 2.1's autoencoder and UNet (or SD-Turbo's), and DINOv2-base.
FOUNDATION = Shape(
    latent=4, stride=8, distortion=320, semantic=768, channels=192, slices=6, context=384, width=384, deep=512,
    blocks=6, pixel=64, unet=320, unet_deep=0, levels=4, layers=2, cross=1024, head=64, tokens=8, step=399,
    foundation=1, rank=32, vae=128, dino_layers=12, dino_side=37,
)  # fmt: skip
