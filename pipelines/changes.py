"""A listing and an archive -> the rows of a plan: keys that are new, have changed, or are to be tried again."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.archive import Archive
from manifests.part import Part
from manifests.plan import PLAN_SCHEMA, batches_of
from manifests.read import FOOTER_BYTES, read_columns
from pipelines.reading import ahead

_COMPARED = ["key", "source_bytes", "mtime", "run", "failure"]
_OTHER_SIZE, _OTHER_MTIME, _FAILED, _SAME_ETAG, _OTHER_ETAG = 1, 2, 4, 8, 16  # flags of a listed key


@dataclass(frozen=True)
class Listing:
    """Images below a source, in ascending order of the keys' UTF-8 bytes."""

    rows: pa.Table  # key, size, mtime, etag32
    other: int


@dataclass(frozen=True)
class Changes:
    """What a listing found, against the archive."""

    new: int
    changed: int
    retried: int  # failures that are tried again
    unchanged: int
    deleted: int  # keys of this source in the archive that the source no longer has: they stay
    other: int  # objects that are left out: no images by their suffix, or without a name in UTF-8
    source_bytes: int  # of what is new, changed or retried


def compare(
    listing: Listing, archive: Archive | None, source: str, meant: re.Pattern[str], retry_failures: bool
) -> tuple[pa.Table, Changes]:
    """Rows for a plan, without captions, and the count of all others.

    A key has changed where its size has, or its ETag; where no ETags are known, where its time has.
    """
    rows, count = listing.rows, len(listing.rows)
    runs: list[str] = []
    held = np.full(count, -1, np.int32)  # place in `runs` of the archived row's run; -1: a new key
    flags = np.zeros(count, np.uint8)
    deleted = 0
    if archive is not None and archive.parts:
        deleted = _mark(rows, archive, source, meant, runs, held, flags)
        if count and rows["etag32"].null_count < count:
            _mark_etags(rows, archive, runs, held, flags)
    new = held < 0
    etag_told = (flags & (_SAME_ETAG | _OTHER_ETAG)) != 0
    changed = (flags & (_OTHER_SIZE | _OTHER_ETAG)) != 0
    changed |= ~etag_told & ((flags & _OTHER_MTIME) != 0)
    retried = ~new & ~changed & ((flags & _FAILED) != 0) & retry_failures
    chosen = new | changed | retried
    planned = rows if bool(chosen.all()) else rows.filter(pa.array(chosen))
    names = pa.array(runs, pa.string()).take(pa.array(held[chosen], mask=new[chosen]))
    planned = planned.append_column(PLAN_SCHEMA.field("replaces"), names)
    planned = planned.append_column(PLAN_SCHEMA.field("caption"), pa.nulls(len(planned), pa.string()))
    changes = Changes(
        new=int(new.sum()),
        changed=int((changed & ~new).sum()),
        retried=int(retried.sum()),
        unchanged=int((~chosen).sum()),
        deleted=deleted,
        other=listing.other,
        source_bytes=int(pc.sum(planned["size"]).as_py() or 0),
    )
    return planned, changes


def _mark(
    rows: pa.Table,
    archive: Archive,
    source: str,
    meant: re.Pattern[str],
    runs: list[str],
    held: NDArray[np.int32],
    flags: NDArray[np.uint8],
) -> int:
    """Sets `runs`, `held`, `flags` from the archive's table; how many keys it holds that the source lacks."""
    gone: Counter[str] = Counter()  # by run
    for batch in _archived(archive):
        keys = batch["key"]
        first, matches = _matches(rows["key"], keys)
        there = np.flatnonzero(matches >= 0)
        places, theirs = first + there, matches[there]
        # `take` joins all chunks of what it takes from: of the slice, not of a million keys.
        mine = rows.select(["size", "mtime"]).slice(first, len(matches)).take(pa.array(there))
        archived = batch.take(pa.array(theirs))
        for run in pc.unique(archived["run"]).to_pylist():
            if run not in runs:
                runs.append(run)
        held[places] = pc.index_in(archived["run"], value_set=pa.array(runs, pa.string())).to_numpy(
            zero_copy_only=False
        )
        flags[places] = (
            _OTHER_SIZE * _numpy(pc.not_equal(mine["size"], archived["source_bytes"]))
            + _OTHER_MTIME * _numpy(pc.not_equal(mine["mtime"], archived["mtime"]))
            + _FAILED * _numpy(archived["failed"])
        )
        lost = np.setdiff1d(np.arange(len(batch)), theirs)
        gone.update(
            run
            for key, run in zip(
                *(batch[name].take(pa.array(lost)).to_pylist() for name in ("key", "run")), strict=True
            )
            if meant.match(key)
        )
    sources = {run: archive.plan_head(run).source for run in {*runs, *gone}}
    for run in runs:
        if sources[run] != source:
            # The table holds each key once: going on would replace that source's images.
            raise ValueError(
                f"{archive.location} holds keys of {sources[run]} under the same names as {source}: "
                "expected another archive, or another --include"
            )
    return sum(count for run, count in gone.items() if sources[run] == source)


def _archived(archive: Archive) -> Iterator[pa.RecordBatch]:
    """key, source_bytes, mtime, run and failed of all rows, a part at a time; ValueError where one is damaged.

    Not by SQL: DataFusion takes 100 MB more for a million keys, and checks no CRC.
    """

    def read(part: Part) -> tuple[Part, pa.Table | None]:
        return part, read_columns(archive.store, part, _COMPARED, FOOTER_BYTES)

    for part, rows in ahead(read, archive.parts.values(), threads=2):
        if rows is None:
            raise ValueError(f"images/{part.path} is damaged or lost: run `archiver verify`")
        for batch in rows.combine_chunks().to_batches():
            failed = pc.is_valid(batch["failure"])
            yield batch.drop_columns(["failure"]).append_column("failed", failed)


def _matches(keys: pa.ChunkedArray, theirs: pa.Array) -> tuple[int, NDArray[np.int64]]:
    """A row, and for each of the sorted `keys` from there the place among `theirs`, or -1.

    Only keys between the least and the greatest of theirs are looked at.
    """
    bounds = pc.min_max(theirs)
    if bounds["min"].as_py() is None:
        return 0, np.empty(0, np.int64)
    view = _Keys(keys)
    first, end = bisect_left(view, bounds["min"].as_py()), bisect_right(view, bounds["max"].as_py())
    found = pc.fill_null(pc.index_in(keys.slice(first, end - first), value_set=theirs), -1)
    return first, found.to_numpy().astype(np.int64)


class _Keys(Sequence[str]):
    """A column as `bisect` wants it."""

    def __init__(self, keys: pa.ChunkedArray) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return str(self._keys[place].as_py())


def _mark_etags(
    rows: pa.Table, archive: Archive, runs: Sequence[str], held: NDArray[np.int32], flags: NDArray[np.uint8]
) -> None:
    """Sets the flags of ETags, from the plans of the runs that the archived rows come from."""
    for number, run in enumerate(runs):
        content = archive.store.read(f"runs/{run}/plan.parquet")
        for batch in batches_of(run, content, ["key", "etag32"]):
            first, matches = _matches(rows["key"], batch["key"])
            there = np.flatnonzero((matches >= 0) & (held[first : first + len(matches)] == number))
            places = first + there
            mine = rows["etag32"].slice(first, len(matches)).take(pa.array(there))
            same = pc.equal(
                mine, batch["etag32"].take(pa.array(matches[there]))
            )  # null where one is not known
            flags[places] |= _SAME_ETAG * _numpy(pc.fill_null(same, False))
            flags[places] |= _OTHER_ETAG * _numpy(pc.fill_null(pc.invert(same), False))


def _numpy(booleans: pa.ChunkedArray | pa.Array) -> NDArray[np.uint8]:
    """0 and 1."""
    found: NDArray[np.uint8] = np.asarray(booleans).astype(np.uint8)
    return found
