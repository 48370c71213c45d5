"""Several processes, a GPU each, that train one network: `torchrun --nproc-per-node N -m archiver train …`.

Each rank cuts its own crops; gradients are averaged before each step and what networks remember after it, so all ranks
keep the same weights and go on from the same checkpoint. They stop after the same step.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

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
            if not parameter.requires_grad:  # frozen: zeros would let the optimiser's momentum move it
                continue
            if parameter.grad is None:  # this rank's crops did not need it; another's may have
                parameter.grad = torch.zeros_like(parameter)
            self._mean(parameter.grad)

    def share_remembered(self, network: nn.Module, first: bool) -> None:
        """The network's buffers, in place: their mean over all ranks; rank 0's where they are whole numbers.

        `first`: all are rank 0's, for each rank may have chosen where to begin from its own crops.
        """
        if self.count == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point() and not first:
                self._mean(buffer)
            else:
                sent = buffer if buffer.is_floating_point() else buffer.long()  # int16 cannot be sent
                distributed.broadcast(sent, 0)
                buffer.copy_(sent)

    def any_says(self, yes: bool, device: torch.device) -> bool:
        """Whether one of all ranks says yes: all hear the same."""
        if self.count == 1:
            return yes
        said = torch.tensor(int(yes), device=device)
        distributed.all_reduce(said, distributed.ReduceOp.MAX)
        return bool(said)

    def leave(self) -> None:
        """Waits for all ranks; from here on each is alone, and may take as long as it likes."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def _mean(self, values: Tensor) -> None:
        distributed.all_reduce(values)
        values.div_(self.count)


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process where torchrun started it for one; else the device as it is."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def join_ranks(device: torch.device) -> tuple[Ranks, torch.device]:
    """The place that torchrun gave this process, and its device; one rank where torchrun did not start it."""
    device = own_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks(), device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(distributed.get_rank(), count), device


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are noted in the list, and take effect when the block ends; a second one does at once."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # no other one hears of signals
        yield came
        return

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[number])

    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {
        number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)
    }
    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)
