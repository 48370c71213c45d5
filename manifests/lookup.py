"""Keys -> the parts that may hold them, the likeliest first."""

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter

from manifests.part import Part


class Lookup:
    """The parts of one version of a table, by what the log says of their keys."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._runs: dict[str, tuple[list[str], list[Part]]] = {}
        self._unbounded: list[Part] = []  # the log has lost their bounds: they may hold any key
        bounded = []
        for part in parts:
            if part.min_key is not None and part.max_key is not None:
                bounded.append(part)
            elif part.records:
                self._unbounded.append(part)
        bounded.sort(key=attrgetter("min_key"))
        for part in bounded:
            lows, held = self._runs.setdefault(part.run, ([], []))
            lows.append(part.min_key or "")
            held.append(part)
        self._lows = [part.min_key or "" for part in bounded]

    def candidates(self, key: str, run: str | None = None) -> list[Part]:
        """Parts, of a run or of any, whose bounds admit the key; those that admit fewest other keys first.

        Parts of one run do not overlap: at most one of each.
        """
        found = []
        for lows, held in self._runs.values() if run is None else filter(None, [self._runs.get(run)]):
            place = bisect_right(lows, key) - 1
            if place >= 0 and key <= (held[place].max_key or ""):
                found.append(held[place])
        found.sort(key=self._width)
        return found + [part for part in self._unbounded if run is None or part.run == run]

    def _width(self, part: Part) -> tuple[int, int]:
        """How many parts begin between its bounds; then how many records it has."""
        first, last = (
            bisect_right(self._lows, part.min_key or ""),
            bisect_right(self._lows, part.max_key or ""),
        )
        return last - first, part.records
