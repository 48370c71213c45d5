"""How far a verb has come: one line on stderr, where that is a terminal."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from archiver.console import bytes_text, duration_text, stderr


class Meter:
    """A bar with count, rate, bytes and time left. Nothing at all where stderr is no terminal."""

    def __init__(self, verb: str, unit: str) -> None:
        self._verb, self._unit = verb, unit
        console = stderr()
        self._wide = console.width >= 100
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if self._wide else 10),
            TimeElapsedColumn(),  # something moves while workers start
            TextColumn("{task.fields[state]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(verb, total=None, state="")
        self._began: tuple[float, int] | None = None  # when the first was counted, and what was done by then

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def name(self, verb: str) -> None:
        """What is being done from here on."""
        self._progress.update(self._task, description=verb)

    def begin(self, done: int, total: int) -> None:
        """Rates are those from here on."""
        self._began = time.monotonic(), done
        self.show(done, total)

    def show(self, done: int, total: int, saved_bytes: int | None = None) -> None:
        """So many of so many; `saved_bytes` is what the source has beyond the archive."""
        began, before = self._began or (time.monotonic(), done)
        state = state_text(
            done, total, done - before, time.monotonic() - began, self._unit, saved_bytes, self._wide
        )
        self._progress.update(self._task, completed=done, total=total, state=state)


def state_text(
    done: int, total: int, counted: int, seconds: float, unit: str, saved_bytes: int | None, wide: bool = True
) -> str:
    """`counted` of those that are done took `seconds`.

    Example: state_text(50, 200, 40, 10.0, "images", 3_000_000)
        -> "50 of 200 images · 4.0/s · 3.00 MB saved · 38 s left"
    """
    parts = [f"{done:,} of {total:,} {unit}" if wide else f"{done:,}/{total:,}"]
    if counted > 0 and seconds > 0:
        rate = counted / seconds
        parts.append(f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s")
    if saved_bytes is not None and saved_bytes > 0:
        parts.append(f"{bytes_text(saved_bytes)} saved" if wide else bytes_text(saved_bytes))
    if counted > 0 and done < total:
        parts.append(f"{duration_text((total - done) * seconds / counted)} left")
    return " · ".join(parts)
