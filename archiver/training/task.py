"""What the training loop asks of a task: networks, and the losses of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]  # pictures as (B, 3, H, W) in [-1, 1], all else as the task's crops made it


@dataclass(frozen=True)
class Step:
    """The loss to go down, and the numbers for the log."""

    loss: Tensor
    terms: Mapping[str, float]


class Task(Protocol):
    """A generator, perhaps its critic, and what they learn from."""

    @property
    def generator(self) -> nn.Module: ...

    @property
    def critic(self) -> nn.Module | None: ...

    def prepared(self, batch: Batch, random: torch.Generator) -> Batch:
        """The batch with what is drawn for it (noise, steps); `random` follows from seed and step."""

    def generated(self, network: nn.Module, batch: Batch) -> Tensor:
        """Pictures (B, 3, H, W) that a network of the generator's kind makes of a prepared batch."""

    def generator_loss(self, batch: Batch, step: int, random: torch.Generator) -> Step: ...

    def critic_loss(self, batch: Batch, step: int) -> Step | None:
        """Called after `generator_loss` of the same batch; None where there is nothing to learn."""

    def validated(self, network: nn.Module, batch: Batch) -> dict[str, float]: ...
