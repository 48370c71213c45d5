"""Objects of a source, asked for again where its store does not answer."""

import errno
import time
from typing import Protocol

from manifests.storage import Location, connect

RETRIES, PAUSE_SECONDS = 2, 0.5
# No file can have such a name, or something else lies there.
NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)


class Readable(Protocol):
    """What is read of a `Store`."""

    def read(self, path: str) -> bytes: ...


class Patient:
    """A source that is read by several threads for as long as a task takes."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._store: Readable = connect(location)

    def read(self, path: str) -> bytes:
        """One lost connection in a million must not end a run, nor must credentials that expire meanwhile."""
        for attempt in range(RETRIES):
            try:
                return self._store.read(path)
            except (ConnectionError, TimeoutError):
                time.sleep(PAUSE_SECONDS * 2**attempt)
                self._store = connect(self._location)  # with credentials as they are now
        return self._store.read(path)


def read_beside(source: Readable, path: str, refused: type[ValueError]) -> bytes | None:
    """What lies beside an image under that name; None where nothing does, or can.

    `refused`, with a line that says why, where it may not be read; OSError where the store does not answer.
    """
    try:
        return source.read(path)
    except (ConnectionError, TimeoutError):
        raise
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_SUCH_NAME:
            return None
        raise refused(f"{path}: {error}") from error
