import os
import subprocess
import sys
from pathlib import Path

import torch

from archiver.training.loop import train
from archiver.training.recipe import start
from manifests.storage import locate
from tests.tiny_training import TINY, weights_of, write_photographs

ROOT = Path(__file__).parents[3]


def test_two_ranks_keep_the_same_weights_and_learn_from_different_crops(tmp_path: Path) -> None:
    source = write_photographs(tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    job = ["-m", "tests.rank_job", str(source), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *job], check=True, cwd=ROOT, env=environment, timeout=300, capture_output=True)
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = start(TINY, locate(str(source)), tmp_path / "alone", torch.device("cpu"), steps=4)
    list(train(alone))
    for name, value in weights_of(alone).items():
        assert torch.equal(first[name], second[name]), name
        if name == "generator.out.weight":
            assert not torch.equal(first[name], value)
