"""Training of the `sprdiff` codec: all rates at once; first symbols and coarse pictures, then the denoiser."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.autoencoder import load_autoencoder
from archiver.codecs.latent_model import bits_of, noisy, whole
from archiver.codecs.published import fit, open_part
from archiver.codecs.sprdiff_foundation import Dino, published_names
from archiver.codecs.sprdiff_networks import Eyes, Sprdiff, begun, context_model
from archiver.codecs.sprdiff_shape import BRANCHES, CELL, COARSE, Shape
from archiver.perception.efficientnet import TAPS, EfficientNetLite, efficientnet_lite0
from archiver.training.perceptual import Judges, Weights
from archiver.training.task import Batch, Step

TEACHER_TAP = 1  # at 1/16


@dataclass(frozen=True)
class SprdiffWeights:
    """What counts besides the final pictures themselves."""

    targets: tuple[float, ...] = (0.014, 0.021, 0.03, 0.042)  # bits a pixel of crops, by rate
    richer: float = 1.6  # times these at first: rate annealing
    anneal_steps: int = 3000
    # In the first steps no final picture is drawn: symbols, coarse picture and semantics cost about a third of a step.
    sketch_steps: int = 2700
    coarse: float = 10.0  # of the coarse picture's squared error
    estimate: float = 0.1  # ... of the latents' estimate, before the denoiser
    latents: float = 0.25  # ... and of the latents behind it
    distilled: float = 1.0
    absent: float = 0.1  # how often each branch is left out, so that the networks know of it
    price: float = 1.0  # of a bit a pixel, at first; its logarithm
    price_rate: float = 0.004  # how fast it follows a rate's bits; at 0.02 it swings


def embedded_eyes(parts: Mapping[str, Path]) -> Eyes:
    """The frozen autoencoders that `sprdiff-tiny` builds on."""
    cpu = torch.device("cpu")
    return Eyes(*(load_autoencoder(parts[name], cpu) for name in ("autoencoder", "autoencoder-mse")))


class Trained(nn.Module):
    """The codec's networks, the entropy model before it is frozen, and what training alone needs."""

    def __init__(self, shape: Shape, teacher: int) -> None:
        super().__init__()
        self.network = Sprdiff(shape)
        self.context = context_model(shape)
        self.taught = nn.Conv2d(shape.semantic, teacher, 1)
        self.register_buffer("prices", torch.zeros(shape.rates))  # logarithms; of a bit a pixel


class SprdiffTask:
    """See `Task`. At embedded size the autoencoders, `eyes`, are frozen, and no part of what is trained."""

    def __init__(
        self, shape: Shape, weights: Weights, extra: SprdiffWeights, eyes: Eyes | None = None
    ) -> None:
        if len(extra.targets) != shape.rates:
            raise ValueError(f"{len(extra.targets)} targets for {shape.rates} rates")
        if (eyes is None) != bool(shape.foundation):
            raise ValueError("the embedded codec builds on autoencoders, the other one on none")
        self.shape, self.extra, self.shared = shape, extra, eyes
        self.generator = Trained(shape, TAPS[TEACHER_TAP][1])
        self.judges = Judges(weights, beside=3)
        self.critic = self.judges.critic
        self.teacher: EfficientNetLite | None = None
        self.generator.get_buffer("prices").fill_(extra.price)
        network = self.generator.network
        # What learns in the first stage only, and is frozen then.
        self.first: nn.Module = network.semantic
        if eyes is not None:
            self.teacher = efficientnet_lite0()
            network.begin(eyes.latents)
        else:
            self.generator.taught.requires_grad_(False)
            self.first = network.transform

    def eyes(self, network: Sprdiff) -> Eyes:
        """The frozen networks that see pictures."""
        return self.shared or network.own_eyes()

    def place(self, device: torch.device) -> None:
        """Moves what is no part of the generator to where it is trained."""
        shared = (self.shared.latents, self.shared.distortion) if self.shared else ()
        for network in (*shared, self.teacher):
            if isinstance(network, nn.Module):
                network.to(device)
        self.judges.to(device)

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """Adds rates, which branches are there, and all noise."""
        crops, side = batch["target"].shape[0], batch["target"].shape[-1]
        device, shape = batch["target"].device, self.shape
        self.place(device)
        sizes = {
            "noise_latents": (crops, shape.latent, side // shape.stride, side // shape.stride),
            "noise_quarter": (crops, 1, side // 4, side // 4),
            "noise_HW": (crops, 1, side, side),
        }
        drawn = {name: torch.randn(*size, generator=random) for name, size in sizes.items()}
        drawn["noise_y"] = torch.rand(crops, shape.channels, side // CELL, side // CELL, generator=random)
        drawn["rates"] = (
            torch.randperm(-(-crops // shape.rates) * shape.rates, generator=random)[:crops] % shape.rates
        )
        drawn["there"] = torch.rand(crops, len(BRANCHES), generator=random) >= self.extra.absent
        return batch | {name: values.to(device) for name, values in drawn.items()}

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        """Final pictures, with all branches."""
        assert isinstance(network, Trained)
        everything = batch | {"there": torch.ones_like(batch["there"])}
        made = self._coded(network, everything)
        latents = network.network.drawn(
            made.estimate, made.coarse, batch["noise_latents"], batch["rates"], everything["there"]
        )
        return self._decoded(network.network, latents, batch)

    def _decoded(self, network: Sprdiff, latents: Tensor, batch: Batch) -> Tensor:
        return self.eyes(network).latents.decode(latents, batch["noise_quarter"], batch["noise_HW"])

    def _coded(self, trained: Trained, batch: Batch) -> "_Coded":
        """The frozen encoders see, the codec quantises, the coarse decoder reconstructs."""
        target, rates = batch["target"], batch["rates"]
        eyes = self.eyes(trained.network)
        with torch.no_grad():
            latents = eyes.latents.encode(target)
        # Of the embedded codec's encoders only the student learns; of the foundation's only the transform.
        distortion, semantic = eyes.distortion.encode(target), trained.network.semantic(target)
        # Gradients of the codec do not reach the student: it is told what pictures show, not what is cheap.
        y = trained.network.analysed((latents, distortion, semantic.detach()), rates, batch["there"])
        symbols = whole(y)
        with torch.autocast(target.device.type, enabled=False):
            means, scales = trained.context(symbols.float(), rates)
            bits = bits_of(symbols.detach().float(), means, scales)
            # Rounded symbols teach the model what they cost, and the encoder what it tells of later ones; noise teaches
            # the encoder what a symbol's own change would cost.
            relaxed = bits_of(noisy(y.float(), batch["noise_y"]), means.detach(), scales.detach())
        beyond, coarse = trained.network.reconstructed(symbols, rates)
        with torch.no_grad():
            estimate = eyes.latents.encode(begun(coarse).contiguous(memory_format=torch.channels_last))
        area = target.shape[2] * target.shape[3]
        return _Coded(
            latents,
            semantic,
            estimate + beyond,
            coarse,
            bits.sum((1, 2, 3)) / area,
            relaxed.sum((1, 2, 3)) / area,
        )

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step:
        extra, target, network = self.extra, batch["target"], self.generator.network
        sketching = step < extra.sketch_steps
        self.first.requires_grad_(sketching)
        made = self._coded(self.generator, batch)
        terms = {
            "coarse": F.mse_loss(made.coarse, F.avg_pool2d(target, COARSE)),
            "estimate": F.mse_loss(made.estimate, made.latents),
        }
        loss = (
            extra.coarse * terms["coarse"]
            + extra.estimate * terms["estimate"]
            + self._rate(made, batch, step)
        )
        if sketching and self.teacher is not None:
            terms["distilled"] = self._distilled(self.teacher, made.semantic, target)
            loss = loss + extra.distilled * terms["distilled"]
        told = {name: float(term.detach()) for name, term in terms.items()}
        told["bpp"] = float(made.bpp.detach().mean())
        if sketching:
            return Step(loss, told)
        # The coarse picture guides; it stays what the squared error makes of it.
        coarse = made.coarse.detach()
        drawn = network.drawn(made.estimate, coarse, batch["noise_latents"], batch["rates"], batch["there"])
        latents = F.mse_loss(drawn, made.latents)
        beside = begun(coarse)
        judged = self.judges.generator_loss(
            self._decoded(network, drawn, batch), target, beside, step, random
        )
        told |= {"latents": float(latents.detach()), **judged.terms}
        return Step(loss + extra.latents * latents + judged.loss, told)

    def _rate(self, made: "_Coded", batch: Batch, step: int) -> Tensor:
        """Bits at their prices; prices go up where a rate takes more bits than it should by now, and else down."""
        extra, prices = self.extra, self.generator.get_buffer("prices")
        price = prices[batch["rates"]].exp()
        # Rounded symbols are not priced: through the model, one rare symbol's slopes would drown all else in a
        # clipped step.
        loss = (made.bpp + price * made.relaxed_bpp).mean()
        left = max(0.0, 1 - step / max(1, extra.anneal_steps))
        with torch.no_grad():
            for rate, target in enumerate(extra.targets):
                mine = batch["rates"] == rate
                if bool(mine.any()):
                    wanted = target * extra.richer**left
                    excess = torch.log(made.bpp[mine].mean() / wanted + 1e-6)
                    prices[rate] += extra.price_rate * excess.nan_to_num(0.0).clamp(-1, 1)
        return loss

    def _distilled(self, teacher: EfficientNetLite, semantic: Tensor, target: Tensor) -> Tensor:
        """How far the student is from the teacher's features, but for their mean and size in each cell."""
        with torch.no_grad():
            wanted = teacher.features(target)[TEACHER_TAP].movedim(1, -1).float()
        found = self.generator.taught(semantic).movedim(1, -1).float()
        size = wanted.shape[-1:]
        return F.mse_loss(F.layer_norm(found, size), F.layer_norm(wanted, size))

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        return self.judges.critic_loss(step) if step >= self.extra.sketch_steps else None

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Bits and mean distances of a batch that is never trained on, at each rate; of coarse pictures too."""
        assert isinstance(network, Trained)
        found: dict[str, float] = {}
        target = batch["target"]
        for rate in range(self.shape.rates):
            same = batch | {
                "rates": torch.full_like(batch["rates"], rate),
                "there": torch.ones_like(batch["there"]),
            }
            made = self._coded(network, same)
            measured = self.judges.measured(self.generated(network, same).clamp(-1, 1), target)
            coarse = self.judges.measured(begun(made.coarse), target)
            found |= {f"{name}{rate}": value for name, value in measured.items()}
            found |= {f"coarse-{name}{rate}": value for name, value in coarse.items()}
            found[f"bpp{rate}"] = float(made.bpp.mean())
        return found


def published(task: SprdiffTask, parts: Mapping[str, Path]) -> SprdiffTask:
    """The task, its frozen networks as they were published: folders of diffusers and transformers."""
    network = task.generator.network
    assert isinstance(network.semantic, Dino)
    for name, module in (
        ("unet", network.denoiser.unet),
        ("vae", network.autoencoder.network),
        ("dinov2", network.semantic.network),
    ):
        part = open_part(parts[name])
        expected = {ours: tuple(tensor.shape) for ours, tensor in module.state_dict().items()}
        names = {}
        for ours in expected:
            if several := published_names(ours):
                names[ours] = next((name for name in several if name in part.shapes), several[0])
        fit(part, names, expected, spare=set())
        found = {ours: part.read(theirs).reshape(expected[ours]).float() for ours, theirs in names.items()}
        module.load_state_dict(found, strict=False)
    return task


@dataclass(frozen=True)
class _Coded:
    """What becomes of a batch before anything is drawn."""

    latents: Tensor  # of the originals
    semantic: Tensor
    estimate: Tensor  # of the latents
    coarse: Tensor  # (B, 3, H/4, W/4)
    bpp: Tensor  # (B,) of rounded symbols
    relaxed_bpp: Tensor  # (B,) with noise for rounding
