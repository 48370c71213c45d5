"""SIGTERM -> a flag that loops look at between two pieces of work."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], object] | int | None


class _Stop:
    """A handler of SIGTERM that sets its flag, and that of the block around it."""

    def __init__(self) -> None:
        self.flag = threading.Event()
        self.ended = False
        self.before: _Handler = signal.getsignal(signal.SIGTERM)
        self.outer: _Stop | None = self.before if type(self.before) is _Stop else None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.flag.set()
        if self.outer is not None:
            self.outer(number, frame)

    def successor(self) -> _Handler:
        """The nearest handler before this one whose block has not ended."""
        return self.outer.successor() if self.outer is not None and self.outer.ended else self.before


@contextmanager
def until_told_to_stop() -> Iterator[threading.Event]:
    """Set by SIGTERM while the block runs. Only the main thread hears it: elsewhere nothing sets the flag."""
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    try:
        yield stop.flag
    finally:
        stop.ended = True
        # Blocks in generators need not end in the order opposite to their beginning.
        successor = stop.successor()
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, successor)
