"""A store that keeps the ranges it has read last: what a condition has read of a part is not asked for again."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from manifests.storage import Entry, Store

MOST_BYTES = 32_000_000  # of remembered ranges


class Recent:
    """See `Store`. For objects that are never changed: ranges of parts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ranges: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._by_path: dict[str, list[tuple[int, int]]] = {}
        self._held = 0
        self._lock = threading.Lock()

    def holds(self, path: str, start: int, end: int) -> bool:
        """Whether `read_range` would ask the store for nothing."""
        with self._lock:
            return self._around(path, start, end) is not None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with self._lock:
            known = self._around(path, start, end)
            if known is not None:
                first, last = known
                return self._ranges[path, first, last][start - first : end - first]
        content = self._store.read_range(path, start, end)
        if path.startswith("images/") and path.endswith(".parquet") and len(content) == end - start:
            self._remember(path, start, end, content)
        return content

    def _around(self, path: str, start: int, end: int) -> tuple[int, int] | None:
        return next(
            (found for found in self._by_path.get(path, ()) if found[0] <= start <= end <= found[1]), None
        )

    def _remember(self, path: str, start: int, end: int, content: bytes) -> None:
        with self._lock:
            if (path, start, end) in self._ranges:
                return
            self._ranges[path, start, end] = content
            self._by_path.setdefault(path, []).append((start, end))
            self._held += len(content)
            while self._held > MOST_BYTES:
                (old, first, last), gone = self._ranges.popitem(last=False)
                self._by_path[old].remove((first, last))
                self._held -= len(gone)

    def read(self, path: str) -> bytes:
        return self._store.read(path)

    def write(self, path: str, content: bytes) -> None:
        self._store.write(path, content)

    def write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        self._store.write_pieces(path, pieces)

    def create(self, path: str, content: bytes) -> bool:
        return self._store.create(path, content)

    def exists(self, path: str) -> bool:
        return self._store.exists(path)

    def size(self, path: str) -> int | None:
        return self._store.size(path)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.list(prefix)

    def delete(self, path: str) -> None:
        self._store.delete(path)
