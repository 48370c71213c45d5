"""A folder as a store: whole objects by rename, put-if-absent by hard link."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from manifests.storage import Entry

UNFINISHED = (
    ".archiver-unfinished-"  # begins the names of files that are being written; listings leave them out
)


class LocalStore:
    """See `Store`. Links to files are followed, links to folders are not (they can form circles)."""

    def __init__(self, root: str) -> None:
        self.root = root

    def _at(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"path {path!r}, expected one below the location")
        return os.path.join(self.root, path) if path else self.root

    def read(self, path: str) -> bytes:
        with open(self._at(path), "rb") as file:
            return file.read()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with open(self._at(path), "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def write(self, path: str, content: bytes) -> None:
        self.write_pieces(path, (content,))

    def write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        with _unfinished(self._at(path), pieces) as name:
            os.replace(name, self._at(path))

    def create(self, path: str, content: bytes) -> bool:
        with _unfinished(self._at(path), (content,)) as name:
            try:
                os.link(name, self._at(path))
            except FileExistsError:
                return False
            return True

    def exists(self, path: str) -> bool:
        return os.path.isfile(self._at(path))

    def size(self, path: str) -> int | None:
        return os.path.getsize(self._at(path)) if self.exists(path) else None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if not os.path.isdir(self.root):
            os.scandir(self.root).close()  # raises what is wrong with it
        folder = prefix.strip("/")
        if os.path.isdir(self._at(folder)):
            yield from _walk(self._at(folder), f"{folder}/" if folder else "")

    def delete(self, path: str) -> None:
        """Takes folders that have become empty away too: as on S3, there are folders only around objects."""
        with suppress(FileNotFoundError):
            os.remove(self._at(path))
        folder = os.path.dirname(path)
        with suppress(OSError):  # not empty, most often
            while folder:
                os.rmdir(self._at(folder))
                folder = os.path.dirname(folder)


@contextmanager
def _unfinished(target: str, pieces: Iterable[bytes]) -> Iterator[str]:
    """A file beside the target that holds the pieces, on disk for good; gone afterwards unless renamed."""
    folder = os.path.dirname(target)
    name = os.path.join(folder, f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with _open_new(name) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())  # the log must not name a part that a power cut can still take back
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.remove(name)


def _open_new(name: str) -> BinaryIO:
    """Opens a new file for writing, in a folder that another process may be taking away as empty."""
    for _ in range(10):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with suppress(FileNotFoundError):
            return open(name, "xb")
    raise FileNotFoundError(name)


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    """Entries at any depth, each path beginning with `prefix`; one folder is open at a time per level."""
    with os.scandir(folder) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                yield from _walk(item.path, f"{prefix}{item.name}/")
            elif item.is_file() and not item.name.startswith(UNFINISHED):
                with suppress(FileNotFoundError):  # deleted since scandir saw it
                    state = item.stat()
                    yield Entry(prefix + item.name, state.st_size, int(state.st_mtime), None)
