"""Several processes, a GPU each, that train one network: `torchrun --nproc-per-node N -m archiver train …`.

Each rank cuts its own crops; gradients are averaged before each step and what critics remember after it, so all ranks
keep the same weights and go on from the same checkpoint.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients, in place, over all ranks; nothing to do for one."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # this rank's crops did not need it; another's may have
                parameter.grad = torch.zeros_like(parameter)
            self._mean(parameter.grad)

    def average_remembered(self, network: nn.Module) -> None:
        """The network's buffers of floats, in place, over all ranks; nothing to do for one."""
        if self.count == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                self._mean(buffer)

    def _mean(self, values: Tensor) -> None:
        distributed.all_reduce(values)
        values.div_(self.count)


def join_ranks(device: torch.device) -> tuple[Ranks, torch.device]:
    """The place that torchrun gave this process, and its device; one rank where torchrun did not start it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks(), device
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return Ranks(distributed.get_rank(), count), device
