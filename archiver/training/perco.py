"""Training of the `perco` codec: the hyper-latent and the UNet together, in the latents of a frozen autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.autoencoder import LATENT, Autoencoder, load_autoencoder
from archiver.codecs.perco_networks import Perco, RateShape, Shape
from archiver.codecs.perco_sampling import LEVELS, TIMES, Corners, Tiling, sampled, times_of
from archiver.codecs.perco_text import TextShape, to_ids, to_list
from archiver.training.loop import Run
from archiver.training.stream import Arrays, windows
from archiver.training.task import Batch, Step
from pipelines.codec import Pixels

CAPTION_BYTES = 600  # of a caption, that batches carry
CHECKED_TIMES = (999, 750, 500, 250)
CHECKED_STEPS = 5

# Grids of 16 and 32 pixels a cell: 0.0313 and 0.0098 bpp before entropy coding.
TINY = Shape(
    rates=(RateShape(1, 256), RateShape(2, 1024)),
    unet={
        "in_channels": LATENT + 48,
        "out_channels": LATENT,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [96, 160],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 128,
    },
    latent=LATENT,
    width=64,
    hyper=48,
    code=16,
    decay=0.98,
    text=TextShape(words=2021, list_bytes=14024),
)


@dataclass(frozen=True)
class PercoCrops:
    """Plain crops of a photograph, and its caption."""

    crop: int

    def __call__(
        self, pixels_hwc: Pixels, caption: str | None, count: int, block_seed: int, seed: int
    ) -> Arrays:
        rng = np.random.default_rng(seed)
        corners = windows(pixels_hwc.shape[0], pixels_hwc.shape[1], self.crop, 1, count, rng)
        return {
            "target": np.stack([pixels_hwc[y : y + self.crop, x : x + self.crop] for y, x in corners]),
            "caption": np.tile(to_letters(caption or ""), (count, 1)),
        }


def to_letters(caption: str) -> NDArray[np.int16]:
    """A caption's first bytes in UTF-8, (CAPTION_BYTES,), 0 where there are no more; int16, for uint8 is pixels."""
    letters = np.zeros(CAPTION_BYTES, dtype=np.int16)
    some = np.frombuffer(caption.encode()[:CAPTION_BYTES], dtype=np.uint8)
    letters[: len(some)] = some
    return letters


def from_letters(letters: Tensor) -> str:
    """Inverse of `to_letters`, without a character that is cut in two."""
    return letters.to(torch.uint8).cpu().numpy().tobytes().rstrip(b"\0").decode(errors="ignore")


class Space(Protocol):
    """Frozen: pixels <-> latents."""

    def to(self, device: torch.device) -> "Space": ...

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents (B, C, h, w)."""

    def decode(self, latents: Tensor) -> Tensor: ...


class Reader(Protocol):
    """Captions -> tokens."""

    def shortened(self, caption: str) -> str: ...

    def filled(self, captions: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Embedded:
    """The latents of the embedded autoencoder."""

    autoencoder: Autoencoder

    def to(self, device: torch.device) -> "Embedded":
        self.autoencoder.to(device)
        return self

    def encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        count, _, h, w = latents.shape
        quarter, full = (torch.zeros(count, 1, h * side, w * side, device=latents.device) for side in (4, 16))
        return self.autoencoder.decode(latents, quarter, full)


@dataclass(frozen=True)
class PercoWeights:
    """What counts besides v, and how it is drawn."""

    direct: float = (
        0.5  # of the latents' error, as a small network tells them from z_hat alone: codes learn faster
    )
    dropped: float = 0.1  # of all captions, so that guidance knows what no caption looks like
    levels: str = "cosine"


class Trained(nn.Module):
    """The codec's networks, and what tells latents from z_hat alone."""

    HIDDEN = 96

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.network = Perco(shape)
        self.direct = nn.Sequential(
            nn.Conv2d(shape.hyper, self.HIDDEN, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(self.HIDDEN, shape.latent, 3, padding=1),
        )


class PercoTask:
    """See `Task`."""

    def __init__(self, shape: Shape, space: Space, reader: Reader, extra: PercoWeights) -> None:
        self.generator = Trained(shape)
        self.critic = None
        self.space, self.reader, self.extra = space, reader, extra
        self.levels = LEVELS[extra.levels]()

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds latents, tokens, noise and times."""
        target = batch["target"]
        count, device = target.shape[0], target.device
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            latents = self.space.to(device).encode(target).float()
        kept = (torch.rand(count, generator=random) >= self.extra.dropped).tolist()
        captions = [
            from_letters(row) if keep else "" for row, keep in zip(batch["caption"], kept, strict=True)
        ]
        tokens = self.reader.filled([self.reader.shortened(caption) for caption in captions])
        return batch | {
            "latents": latents,
            "tokens": tokens.to(device),
            "noise": torch.randn(latents.shape, generator=random).to(device),
            "times": torch.randint(0, TIMES, (count,), generator=random).to(device),
        }

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        """At one rate, which follows from the step alone: all ranks have to agree on it."""
        network, latents = self.generator.network, batch["latents"]
        rate = network.rate(int(np.random.default_rng(step).integers(len(network.rates))))
        z_hat, _ = rate.vq(rate.hyper(latents), random)
        noisy = self.levels.noisy(latents, batch["noise"], batch["times"])
        v = self.levels.v(latents, batch["noise"], batch["times"])
        found = network.velocity(noisy, z_hat, batch["times"], self._text(network, batch["tokens"]))
        loss_v = F.mse_loss(found.float(), v)
        shown = F.interpolate(z_hat, size=latents.shape[2:], mode="nearest")
        loss_direct = F.mse_loss(self.generator.direct(shown).float(), latents)
        terms = {"v": float(loss_v.detach()), "direct": float(loss_direct.detach())}
        return Step(loss_v + self.extra.direct * loss_direct, terms)

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return None

    def _text(self, network: Perco, tokens: Tensor) -> Tensor:
        assert network.text is not None
        text: Tensor = network.text(tokens)
        return text

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        """Pictures at the first rate, in a few steps without guidance."""
        return self.space.decode(self._sampled(network, batch, 0))

    def _sampled(self, network: nn.Module, batch: Batch, number: int) -> Tensor:
        """Latents that the first noise of the batch becomes."""
        assert isinstance(network, Trained)
        perco = network.network
        z_hat, text = told(perco, batch["latents"], number), self._text(perco, batch["tokens"])

        def velocity(noisy: Tensor, _: Corners, time: int) -> Tensor:
            times = torch.full((len(noisy),), time, device=noisy.device)
            return perco.velocity(noisy, z_hat, times, text).float()

        whole = max(batch["noise"].shape[2:])
        return sampled(
            batch["noise"], velocity, self.levels, times_of(CHECKED_STEPS, "trailing"), Tiling(whole, 0)
        )

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Errors of a batch that is never trained on, at each rate.

        `v` at fixed times, of sampled latents, of what z_hat alone tells, and how many codes are about in use.
        """
        assert isinstance(network, Trained)
        perco, latents, noise = network.network, batch["latents"], batch["noise"]
        text = self._text(perco, batch["tokens"])
        found: dict[str, float] = {}
        for number in range(len(perco.rates)):
            z_hat = told(perco, latents, number)
            errors = []
            for time in CHECKED_TIMES:
                times = torch.full((len(latents),), time, device=latents.device)
                v = perco.velocity(self.levels.noisy(latents, noise, times), z_hat, times, text)
                errors.append(F.mse_loss(v.float(), self.levels.v(latents, noise, times)))
            shown = F.interpolate(z_hat, size=latents.shape[2:], mode="nearest")
            sampled_error = F.mse_loss(self._sampled(network, batch, number), latents)
            found |= {
                f"v{number}": float(torch.stack(errors).mean()),
                f"sampled{number}": float(sampled_error),
                f"direct{number}": float(F.mse_loss(network.direct(shown).float(), latents)),
                f"codes{number}": perplexity(perco.rate(number).vq.seen),
            }
        return found


def told(network: Perco, latents: Tensor, number: int) -> Tensor:
    """z_hat as a decoder has it."""
    rate = network.rate(number)
    with torch.autocast(latents.device.type, enabled=False):
        return rate.vq.embedded(rate.vq.indices(rate.hyper(latents.float())))


def perplexity(seen: Tensor) -> float:
    """How many codes of equal use there would be."""
    share = seen.double() / seen.double().sum().clamp_min(1e-12)
    return float(torch.exp(-(share * torch.log(share.clamp_min(1e-12))).sum()))


def common_words() -> list[str]:
    """The words that the embedded presets are trained with: those of two captions or more of their training."""
    return files("archiver.training").joinpath("words.txt").read_text("ascii").split()


def embedded_task(shape: Shape, extra: PercoWeights, autoencoder: Path) -> PercoTask:
    """The codec with a text encoder of its own, that knows the common words."""
    space = Embedded(load_autoencoder(autoencoder, torch.device("cpu")))
    words = common_words()
    assert shape.text is not None
    task = PercoTask(shape, space, to_ids(words, shape.text.tokens), extra)
    text = task.generator.network.text
    assert text is not None
    text.get_buffer("list").copy_(to_list(words))
    return task


def fitted(run: Run) -> Perco:
    """The averaged networks that the codec loads."""
    averaged = run.averaged()
    assert isinstance(averaged, Trained)
    return averaged.network
