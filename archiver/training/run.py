"""The state of a training, and a step of it: all that a checkpoint holds."""

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from archiver.codecs.networks import channels_last
from archiver.precision import autocast
from archiver.training.checkpoint import put_in_place, read_checkpoint
from archiver.training.ranks import Ranks
from archiver.training.stream import Arrays, Feed
from archiver.training.task import Batch, Task

CHECKPOINT = "checkpoint.pt"
HELD_OUT = 40
MOST_SKIPPED = 100  # steps in a row
SAME = ("recipe", "source", "listing", "crop", "batch", "parts")  # facts of a run that goes on


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    rate: float = 4e-4  # learning rate of the generator
    critic_rate: float = 4e-4
    warm_up: int = 200  # steps
    cool_down: int = 2000  # steps at the end, in which the rates fall linearly to 0
    ema: float = 0.999
    clip: float = 1.0  # norm of the gradient
    betas: tuple[float, float] = (0.8, 0.99)
    decay: float = 0.0  # of weights, AdamW's
    parts: int = (
        1  # of a batch, whose gradients are added up before a step: less memory; for tasks without a critic
    )
    save_seconds: float = 240
    log_steps: int = 20
    check_steps: int = 500

    def factor(self, step: int) -> float:
        """What the rates are multiplied with."""
        warm = min(1.0, (step + 1) / self.warm_up)
        return warm * min(1.0, max(0.0, (self.steps - step) / max(1, self.cool_down)))


def tensors_of(arrays: Arrays, device: torch.device) -> Batch:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1], channels last; other arrays as they are."""
    batch = {}
    for name, values in arrays.items():
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        if values.dtype == np.uint8:
            tensor = (tensor.permute(0, 3, 1, 2).float() / 127.5 - 1).to(memory_format=torch.channels_last)
        batch[name] = tensor
    return batch


def in_parts(arrays: Arrays, parts: int) -> Iterator[Arrays]:
    """A batch in so many equal parts."""
    for part in range(parts):
        yield {name: np.split(values, parts)[part] for name, values in arrays.items()}


class Run:
    """The state of a training: all of it is in the checkpoint."""

    def __init__(
        self,
        task: Task,
        feed: Feed,
        schedule: Schedule,
        out: Path,
        device: torch.device,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
        facts: Mapping[str, object] | None = None,  # for facts.json; those in SAME stay the same along a run
    ) -> None:
        self.task, self.schedule, self.out, self.device, self.ranks = task, schedule, out, device, ranks
        if feed.batch % schedule.parts or (schedule.parts > 1 and task.critic is not None):
            raise ValueError(
                f"a batch of {feed.batch} crops in {schedule.parts} parts, with or without a critic"
            )
        self.seed, self.facts = feed.seed, dict(facts or {})
        feed = replace(feed, seed=feed.seed + 100_003 * ranks.rank)
        # Never trained on: each fortieth photograph, cut once, at settings that stay the same along a run.
        self.feed = replace(feed, photos=tuple(p for n, p in enumerate(feed.photos) if n % HELD_OUT))
        self.held_out = replace(feed, photos=feed.photos[::HELD_OUT], block_photos=4, crops_a_photo=4)
        self.step = 0
        self.whole = True  # no step is under way
        self.skipped = 0  # steps in a row, up to this one
        self.modules: list[nn.Module] = [task.generator, *([task.critic] if task.critic is not None else [])]
        for module in self.modules:
            channels_last(module.to(device))
        rates = (schedule.rate, schedule.critic_rate)
        self.optimisers = [
            torch.optim.AdamW(
                [p for p in m.parameters() if p.requires_grad],
                rate,
                schedule.betas,
                weight_decay=schedule.decay,
            )
            for m, rate in zip(self.modules, rates, strict=False)
        ]
        self.ema = {name: value.detach().clone() for name, value in task.generator.state_dict().items()}

    def state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "seed": self.seed,
            "steps": self.schedule.steps,
            "facts": {name: self.facts[name] for name in SAME if name in self.facts},
            "modules": [module.state_dict() for module in self.modules],
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "ema": self.ema,
        }

    def save(self) -> None:
        """All ranks hold the same: the first one writes it."""
        if self.ranks.rank:
            return
        with put_in_place(self.out / CHECKPOINT) as unfinished, open(unfinished, "wb") as file:
            torch.save(self.state(), file)

    def load(self, file: Path) -> None:
        """Inverse of `save`; ValueError where the checkpoint is damaged, or of another run than this one."""
        found = read_checkpoint(file, self.device)
        self._check_same(file, found)
        try:
            if len(found["modules"]) != len(self.modules):
                raise RuntimeError(f"{len(found['modules'])}, not {len(self.modules)}")
            for module, state in zip(self.modules, found["modules"], strict=True):
                module.load_state_dict(state)
            for optimiser, state in zip(self.optimisers, found["optimisers"], strict=True):
                optimiser.load_state_dict(state)
            self.ema, self.step = found["ema"], found["step"]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{file} holds other networks: {str(error).splitlines()[0]}") from error
        except KeyError as error:
            raise ValueError(f"{file} is no checkpoint of a training: it has no {error}") from error

    def _check_same(self, file: Path, found: Mapping[str, Any]) -> None:
        """ValueError that names all that a checkpoint has otherwise; older ones tell less."""
        before, now = {"seed": found.get("seed"), **found.get("facts", {})}, {"seed": self.seed, **self.facts}
        differing = [
            f"{name} {before[name]}, not {fact}"
            for name, fact in now.items()
            if before.get(name, fact) != fact
        ]
        if found.get("steps", 0) > self.schedule.steps:
            differing.append(f"{found['steps']} steps, not fewer ({self.schedule.steps})")
        if differing:
            raise ValueError(
                f"{file} was trained with {'; '.join(differing)}: expected the same, or another folder"
            )

    def begin(self) -> None:
        """Goes on from `out/checkpoint.pt` where there is one, and tells what this run is in facts.json."""
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / CHECKPOINT).exists():
            self.load(self.out / CHECKPOINT)
        if self.facts and not self.ranks.rank:
            with put_in_place(self.out / "facts.json") as unfinished:
                unfinished.write_text(json.dumps(self.facts, indent=1) + "\n")

    def averaged(self) -> nn.Module:
        """The generator with the moving average of its weights, for measuring and shipping."""
        network = copy.deepcopy(self.task.generator).eval()
        network.load_state_dict(self.ema)
        return network

    def random(self) -> torch.Generator:
        """What a step draws follows from seed and step: nothing to save, nothing to lose."""
        return torch.Generator().manual_seed(self.feed.seed * 1_000_003 + self.step)

    def advance(self, arrays: Arrays) -> dict[str, float]:
        """One step of all networks."""
        self.whole = False
        random = self.random()
        factor = self.schedule.factor(self.step)
        for optimiser, rate in zip(
            self.optimisers, (self.schedule.rate, self.schedule.critic_rate), strict=False
        ):
            optimiser.param_groups[0]["lr"] = rate * factor
        critic = self.task.critic
        if critic is not None:
            critic.requires_grad_(False)
        parts, made, batch = self.schedule.parts, [], Batch()

        def losses() -> Iterator[Tensor]:
            nonlocal batch
            for part in in_parts(arrays, parts):
                batch = self.task.prepared(tensors_of(part, self.device), random)
                with autocast(self.device):
                    made.append(self.task.generator_loss(batch, self.step, random))
                yield made[-1].loss / parts

        norms = [self._descend(0, losses())]
        terms = {name: sum(step.terms[name] for step in made) / parts for name in made[0].terms}
        terms["norm"] = norms[0]
        if critic is not None:
            critic.requires_grad_(True)
            with autocast(self.device):
                judged = self.task.critic_loss(batch, self.step)
            if judged is not None:
                terms |= judged.terms
                norms.append(self._descend(1, [judged.loss]))
        for module in self.modules:
            self.ranks.share_remembered(module, first=self.step == 0)
        self._average()
        self._count_skipped(norms)
        self.step += 1
        self.whole = True
        return terms

    def _descend(self, place: int, losses: Iterable[Tensor]) -> float:
        """Down the sum of losses, each of which is made when the slopes of those before are known."""
        optimiser = self.optimisers[place]
        optimiser.zero_grad(set_to_none=True)
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.modules[place].parameters())
        self.ranks.average(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.schedule.clip)
        if bool(torch.isfinite(norm)):  # one bad batch must not end a run of days
            optimiser.step()
        return float(norm)

    def _count_skipped(self, norms: list[float]) -> None:
        """ValueError where nothing has been learned for long, and no step will mend it."""
        self.skipped = 0 if all(map(math.isfinite, norms)) else self.skipped + 1
        if self.skipped == MOST_SKIPPED:
            raise ValueError(
                f"{MOST_SKIPPED} steps in a row, up to step {self.step + 1}, without a finite gradient: "
                "what is saved is from before them"
            )

    @torch.no_grad()
    def _average(self) -> None:
        share = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.task.generator.state_dict().items():
            average = self.ema[name]
            if average.is_floating_point():
                average.lerp_(value.detach(), 1 - share)
            else:
                average.copy_(value)

    @torch.no_grad()
    def check(self, held_out: Arrays) -> dict[str, float]:
        """Held-out photographs, with the averaged weights; also writes them as a picture."""
        network = self.averaged()
        random = torch.Generator().manual_seed(0)
        batch = self.task.prepared(tensors_of(held_out, self.device), random)
        with autocast(self.device):
            made = self.task.generated(network, batch).float().clamp(-1, 1)
            found = self.task.validated(network, batch)
        rows = torch.stack((batch["target"], made), 1)[:6]  # (pictures, 2, 3, H, W)
        sheet = rows.permute(1, 3, 0, 4, 2).flatten(0, 1).flatten(1, 2)
        pixels = ((sheet + 1) * 127.5).round().byte().cpu().numpy()
        Image.fromarray(pixels).save(self.out / f"sample-{self.step:07d}.png")
        return found
