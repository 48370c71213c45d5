import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from archiver.training.loop import train
from archiver.training.ranks import own_device, signals_held
from archiver.training.recipe import Recipe, start
from manifests.storage import locate
from tests.command_line import objects
from tests.tiny_training import TINY, TOY, weights_of, write_photographs

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks of tests/rank_job.py have left their weights, what they printed, and their `photographs`."""
    parent = tmp_path_factory.mktemp("ranks")
    source = write_photographs(parent)
    out = parent / "out"
    out.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(out / "stdout", "w") as stdout, open(out / "stderr", "w") as stderr:
        subprocess.run(
            [*launch, "-m", "tests.rank_job", str(source), str(out)],
            check=True,
            cwd=ROOT,
            env=environment,
            timeout=300,
            stdout=stdout,
            stderr=stderr,
        )
    return out


@pytest.mark.parametrize(("recipe", "learned"), [(TINY, "enhancer.out.weight"), (TOY, "colour")])
def test_two_ranks_keep_the_same_weights_and_learn_from_different_crops(
    out: Path, recipe: Recipe, learned: str
) -> None:
    first, second = (torch.load(out / f"{recipe.name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    source = locate(str(out.parent / "train"))
    alone = start(recipe, source, out / f"{recipe.name}-alone", torch.device("cpu"), steps=4)
    list(train(alone))
    weights = weights_of(alone)
    for name in weights:
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first[f"generator.{learned}"], weights[f"generator.{learned}"])
    if recipe is TOY:  # chosen by the first rank, as if it was alone
        assert torch.equal(first["generator.first"], weights["generator.first"])


def test_one_rank_speaks_for_all_and_names_the_weights(out: Path) -> None:
    told = objects((out / "stdout").read_text())
    weights = out / "command" / "toy.safetensors"
    assert [line["step"] for line in told] == [1, 2, 3, 4, 5, 6, 6]
    assert told[-1] == {"kind": "weights", "step": 6, "file": str(weights)}
    assert weights.exists()


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert own_device(cuda) == cuda
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device(cuda) == torch.device("cuda", 3)
    assert own_device(cpu) == cpu


@pytest.fixture
def _interrupted_by_sigint() -> Iterator[None]:
    """As in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupted_by_sigint")
def test_a_signal_takes_effect_when_the_block_ends_and_a_second_one_at_once() -> None:
    heard: list[int] = []

    def interrupted(times: int) -> None:
        with signals_held() as came:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
                heard.append(len(came))

    for times, expected in ((1, [1]), (2, [1, 1])):
        with pytest.raises(KeyboardInterrupt):
            interrupted(times)
        assert heard == expected
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_interrupted_by_sigint")
def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_held() as came:
        signal.raise_signal(signal.SIGINT)
    assert came == []
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
