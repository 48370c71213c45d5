"""SIGTERM -> a flag that loops look at between two pieces of work."""

import signal
import threading
from collections.abc import Iterator
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
            outer = stop
            while outer.ended and isinstance(outer.before, _Stop):
                outer = outer.before
            signal.signal(signal.SIGTERM, outer.before if outer.ended else outer)
