"""Keys -> their records, each part's needed row groups read once, in order, ahead of whoever decodes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from manifests.lookup import Lookup
from manifests.part import Damaged, Part
from manifests.read import read_records
from manifests.records import Record
from manifests.storage import Store

NOT_THERE = "not in the archive"
_AHEAD = 4  # parts read at once

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Reading:
    """Keys that one part is to be asked for."""

    part: Part
    keys: tuple[str, ...]  # ascending


@dataclass(frozen=True)
class Missing:
    """A key that the part which was asked did not give."""

    key: str
    why: str


@dataclass(frozen=True)
class Found:
    """What one reading gave."""

    records: tuple[Record, ...]
    captions_lost: frozenset[str]  # keys of those records whose caption is damaged
    missing: tuple[Missing, ...]


def read(store: Store, reading: Reading) -> Found:
    """Each key of the reading as a record or as missing."""
    records, captions_lost, missing = [], set(), []
    left = set(reading.keys)
    for found in read_records(store, reading.part, frozenset(reading.keys)):
        left.discard(found.key)
        if isinstance(found, Record):
            records.append(found)
        elif found.what == "caption":
            captions_lost.add(found.key)
        else:
            missing.append(Missing(found.key, why_lost(found)))
    missing += [Missing(key, NOT_THERE) for key in sorted(left)]
    return Found(tuple(records), frozenset(captions_lost), tuple(missing))


def why_lost(damaged: Damaged) -> str:
    return f"damaged in the archive: {damaged.what}"


class Search:
    """Which part to ask for which key, and which one next where it is not there."""

    def __init__(self, parts: Iterable[Part], runs: Mapping[str, str | None]) -> None:
        """`runs`: key -> the run that holds it, None where that is not known."""
        self._lookup, self._runs = Lookup(parts), runs
        self._asked: dict[str, tuple[int, str]] = {}  # key -> how many parts, and the best reason so far

    def begin(self) -> tuple[list[Reading], list[Missing]]:
        """Readings of all keys, in the order of the parts; and the keys that no part can hold."""
        return self._next([Missing(key, NOT_THERE) for key in self._runs])

    def again(self, missing: Iterable[Missing]) -> tuple[list[Reading], list[Missing]]:
        """The next readings of keys that were not found, and those of them that remain lost."""
        told = list(missing)
        for miss in told:
            count, why = self._asked.get(miss.key, (0, NOT_THERE))
            self._asked[miss.key] = (count + 1, miss.why if why == NOT_THERE else why)
        return self._next(told)

    def _next(self, missing: Iterable[Missing]) -> tuple[list[Reading], list[Missing]]:
        chosen: dict[str, tuple[Part, list[str]]] = {}
        lost = []
        for miss in missing:
            count, why = self._asked.get(miss.key, (0, NOT_THERE))
            candidates = self._lookup.candidates(miss.key, self._runs.get(miss.key))
            if count < len(candidates):
                part = candidates[count]
                chosen.setdefault(part.path, (part, []))[1].append(miss.key)
            else:
                lost.append(Missing(miss.key, why))
        return [Reading(part, tuple(sorted(keys))) for _, (part, keys) in sorted(chosen.items())], lost


def ahead(work: Callable[[T], U], items: Iterable[T], threads: int = _AHEAD) -> Iterator[U]:
    """map(work, items), a few items ahead of whoever takes the results."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[U]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
