"""What of a training task stays on the CPU where it is trained on another device: `meta`, which any machine has."""

from collections.abc import Iterator

import torch
from torch import nn

from archiver.training.task import Batch, Task

META = torch.device("meta")


def left_behind(task: Task, batch: Batch) -> list[str]:
    """The networks that are not on `meta`, once a run has moved its own there, and a batch is prepared there."""
    for module in (task.generator, task.critic):
        if module is not None:
            module.to(META)
    task.prepared(batch | {"target": batch["target"].to(META)}, torch.Generator())
    return [
        type(network).__name__
        for network in _networks(task)
        if any(tensor.device != META for tensor in (*network.parameters(), *network.buffers()))
    ]


def _networks(found: object) -> Iterator[nn.Module]:
    if isinstance(found, nn.Module):
        yield found
    elif type(found).__module__.startswith("archiver."):
        for value in vars(found).values():
            yield from _networks(value)
