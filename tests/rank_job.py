"""One rank of test_ranks.py: trains a tiny network for a few steps, and saves its weights as rank-N.pt."""

import sys
from pathlib import Path

import torch

from archiver.training.loop import train
from archiver.training.recipe import start
from manifests.storage import locate
from tests.tiny_training import TINY, weights_of


def main() -> None:
    source, out = sys.argv[1:]
    torch.set_num_threads(1)
    run = start(TINY, locate(source), Path(out), torch.device("cpu"), steps=4)
    list(train(run))
    assert run.ranks.count == 2
    torch.save(weights_of(run), Path(out) / f"rank-{run.ranks.rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
