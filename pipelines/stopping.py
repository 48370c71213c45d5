"""SIGTERM -> a flag that loops look at between two pieces of work."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class _Stop:
    """A handler of SIGTERM that sets its flag, and that of the handler before it."""

    def __init__(self) -> None:
        self.flag = threading.Event()
        self.ended = False
        self.before = signal.getsignal(signal.SIGTERM)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.flag.set()
        if isinstance(self.before, _Stop):
            self.before(number, frame)

    def successor(self) -> "Callable[[int, FrameType | None], object] | int | None":
        """The nearest handler before this one whose block has not ended."""
        if isinstance(self.before, _Stop) and self.before.ended:
            return self.before.successor()
        return self.before


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
        if signal.getsignal(signal.SIGTERM) is stop:
            # Blocks in generators need not end in the order opposite to their beginning.
            signal.signal(signal.SIGTERM, stop.successor())
