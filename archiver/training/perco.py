"""Training of the `perco` codec: the hyper-latent and the UNet together, in the latents of a frozen autoencoder."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.autoencoder import LATENT, load_autoencoder
from archiver.codecs.perco_networks import Perco, Rate, RateShape, Shape
from archiver.codecs.perco_sampling import LEVELS, TIMES, Corners, Tiling, sampled, times_of
from archiver.codecs.perco_spaces import EmbeddedSpace, Reader, Space, WordReader
from archiver.codecs.perco_text import TextShape, to_list, words_of
from archiver.codecs.stable_diffusion import TextEncoder
from archiver.perception.lpips import LPIPS
from archiver.precision import autocast
from archiver.training.stream import Arrays, PlainCrops
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
        "block_out_channels": [96, 144],
        "norm_num_groups": 16,
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
        plain = PlainCrops(self.crop)(pixels_hwc, caption, count, block_seed, seed)
        return {**plain, "caption": np.tile(to_letters(caption or ""), (count, 1))}


def to_letters(caption: str) -> NDArray[np.int16]:
    """A caption's first bytes in UTF-8, (CAPTION_BYTES,), 0 where there are no more; int16, for uint8 is pixels."""
    letters = np.zeros(CAPTION_BYTES, dtype=np.int16)
    some = np.frombuffer(caption.encode()[:CAPTION_BYTES], dtype=np.uint8)
    letters[: len(some)] = some
    return letters


def from_letters(letters: Tensor) -> str:
    """Inverse of `to_letters`, without a character that is cut in two."""
    return letters.to(torch.uint8).cpu().numpy().tobytes().rstrip(b"\0").decode(errors="ignore")


@dataclass(frozen=True)
class PercoWeights:
    """What counts besides v, and how it is drawn."""

    direct: float = (
        0.5  # of the latents' error, as a small network tells them from z_hat alone: codes learn faster
    )
    dropped: float = 0.1  # of all captions, so that guidance knows what no caption looks like
    levels: str = "cosine"
    lpips: float = 0.0  # of LPIPS (VGG) of the picture that a prediction of v means, in a window
    window: int = 32  # latent cells a side


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

    def __init__(self, generator: Trained, space: Space, reader: Reader, extra: PercoWeights) -> None:
        self.generator = generator
        self.critic = None
        self.space, self.reader, self.extra = space, reader, extra
        self.levels = LEVELS[extra.levels]()
        self.lpips = LPIPS("vgg16").eval() if extra.lpips else None

    def place(self, device: torch.device) -> None:
        """Moves what is no part of the generator to where it is trained."""
        self.space.to(device)
        if isinstance(self.reader, TextEncoder):
            self.reader.to(device)
        if self.lpips is not None:
            self.lpips.to(device)

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds latents, tokens, noise and times."""
        target = batch["target"]
        count, device = target.shape[0], target.device
        self.place(device)
        with torch.no_grad(), autocast(device):
            latents = self.space.encode(target).float()
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
        z_hat = quantised(rate, latents, random)
        noisy = self.levels.noisy(latents, batch["noise"], batch["times"])
        v = self.levels.v(latents, batch["noise"], batch["times"])
        found = network.velocity(noisy, z_hat, batch["times"], self._text(network, batch["tokens"]))
        loss_v = F.mse_loss(found.float(), v)
        losses = [loss_v]
        terms = {"v": float(loss_v.detach())}
        if self.extra.direct:
            shown = F.interpolate(z_hat, size=latents.shape[2:], mode="nearest")
            direct = F.mse_loss(self.generator.direct(shown).float(), latents)
            losses.append(self.extra.direct * direct)
            terms["direct"] = float(direct.detach())
        if self.lpips is not None:
            clean = self.levels.clean(noisy, found.float(), batch["times"])
            apart = self._apart(self.lpips, clean, batch["target"], random)
            losses.append(self.extra.lpips * apart)
            terms["lpips"] = float(apart.detach())
        return Step(torch.stack(losses).sum(), terms)

    def _apart(self, lpips: LPIPS, clean: Tensor, target: Tensor, random: torch.Generator) -> Tensor:
        """LPIPS between what latents mean and the target, in one window of all pictures."""
        side, cell = min(self.extra.window, *clean.shape[2:]), self.space.cell
        top, left = (
            int(torch.randint(0, length - side + 1, (), generator=random)) for length in clean.shape[2:]
        )
        made = self.space.decode(clean[:, :, top : top + side, left : left + side])
        rows, columns = (slice(first * cell, (first + side) * cell) for first in (top, left))
        distance: Tensor = lpips(made, target[:, :, rows, columns]).mean()
        return distance

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return None

    def _text(self, network: Perco, tokens: Tensor) -> Tensor:
        """With slopes where the text encoder is the codec's own; else it is frozen."""
        if network.text is not None:
            text: Tensor = network.text(tokens)
            return text
        with torch.no_grad():
            return self.reader.embedded(tokens)

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


def quantised(rate: Rate, latents: Tensor, random: torch.Generator) -> Tensor:
    """z_hat; the codes learn from finite latents alone."""
    before = [buffer.clone() for buffer in rate.vq.buffers()]
    z_hat: Tensor = rate.vq(rate.hyper(latents), random)[0]
    # Afterwards, when all ranks have told each other their sums, they agree on it.
    if not all(bool(buffer.isfinite().all()) for buffer in rate.vq.buffers()):
        for buffer, value in zip(rate.vq.buffers(), before, strict=True):
            buffer.copy_(value)
    return z_hat


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
    space = EmbeddedSpace(load_autoencoder(autoencoder, torch.device("cpu")))
    generator = Trained(shape)
    text = generator.network.text
    assert text is not None
    text.get_buffer("list").copy_(to_list(common_words()))
    return PercoTask(generator, space, WordReader(words_of(text), text), extra)
