"""One rank of test_ranks.py: trains tiny networks, saves their weights as NAME-RANK.pt, then runs the command."""

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from archiver.commands import train as command
from archiver.training import loop, recipes
from archiver.training.loop import train
from archiver.training.recipe import start
from manifests.storage import locate
from tests.tiny_training import TINY, TOY, Toy, weights_of


def main() -> None:
    source, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    run = start(TINY, locate(source), out / "tiny", torch.device("cpu"), steps=4)
    list(train(run))
    assert run.ranks.count == 2
    torch.save(weights_of(run), out / f"tiny-{run.ranks.rank}.pt")

    run = start(TOY, locate(source), out / "toy", torch.device("cpu"), steps=100)
    early = run.task.generator.get_parameter("early")
    seconds = (10, 7)[run.ranks.rank]  # that a step takes by the rank's own clock
    with patch.object(loop, "time", SimpleNamespace(monotonic=lambda: seconds * run.step)):
        for progress in train(run, minutes=1):
            if progress.step == Toy.FROZEN:
                frozen = early.detach().clone()
    assert run.step == 7
    assert torch.equal(early, frozen)
    torch.save(weights_of(run), out / f"toy-{run.ranks.rank}.pt")

    with patch.object(recipes, "find_recipe", lambda _: TOY):
        command.train("toy", source, out / "command", as_json=True)
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    main()
