"""A task and photographs -> weights, in a run that can stop at any time and go on exactly."""

import json
import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TextIO

from archiver.training.ranks import signals_held
from archiver.training.run import Run
from archiver.training.stream import batches, block_of


@dataclass(frozen=True)
class Progress:
    """What happened at a step; a line of log.jsonl."""

    step: int
    seconds: float  # of this run of the program
    terms: dict[str, float]
    kind: str = "train"  # or "check": measured on held-out photographs

    def told(self) -> dict[str, object]:
        """For JSON, which knows finite numbers only: null in place of others."""
        terms = {name: value if math.isfinite(value) else None for name, value in self.terms.items()}
        return {**vars(self), "terms": terms}


def train(run: Run, minutes: float | None = None) -> Generator[Progress]:
    """Each step to the schedule's last one, or for some minutes; goes on from `out/checkpoint.pt` where there is one.

    Whoever stops asking for more steps stops the run: it is saved then, and every few minutes. A signal stops it after
    the step under way. What is saved is the state after a whole step that was not skipped.
    """
    run.begin()
    held_out = block_of(run.held_out, 0)
    started = saved = time.monotonic()
    name = f"log-{run.ranks.rank}.jsonl" if run.ranks.rank else "log.jsonl"
    with (
        signals_held() as signals,
        open(run.out / name, "a") as log,
        closing(batches(run.feed, run.step)) as stream,
    ):
        try:
            while run.step < run.schedule.steps:
                progress = Progress(run.step + 1, time.monotonic() - started, run.advance(next(stream)))
                if run.step % run.schedule.log_steps == 0:
                    _write(log, progress)
                yield progress
                if run.step % run.schedule.check_steps == 0 and not run.ranks.rank:
                    found = Progress(run.step, time.monotonic() - started, run.check(held_out), "check")
                    _write(log, found)
                    yield found
                if time.monotonic() - saved > run.schedule.save_seconds and not run.skipped:
                    run.save()
                    saved = time.monotonic()
                late = minutes is not None and time.monotonic() - started > 60 * minutes
                if run.ranks.any_says(late or bool(signals), run.device):
                    break
        finally:
            if run.whole and not run.skipped:
                run.save()


def _write(log: TextIO, progress: Progress) -> None:
    log.write(json.dumps(progress.told(), allow_nan=False) + "\n")
    log.flush()
