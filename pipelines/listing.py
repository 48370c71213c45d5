"""A source as it is now, and an archive -> the frozen plan of a run: keys that are new or have changed."""

import fnmatch
import hashlib
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import QueryBuilder
from numpy.typing import NDArray

from manifests.archive import Archive
from manifests.plan import PLAN_SCHEMA, Plan, PlanHead
from manifests.records import CodecSpec
from manifests.storage import LOCAL, Entry, Location, connect
from pipelines.captions import read_caption_table

# What people call images. What this program cannot read (.heic) fails by name instead of going unnoticed.
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".ico", ".icns", ".pcx", ".sgi", ".qoi", ".dds", ".psd",
))  # fmt: skip
_CHUNK = 20_000  # keys that exist as Python objects at a time
_LISTED = pa.schema([PLAN_SCHEMA.field(name) for name in ("key", "size", "mtime", "etag32")])
_OTHER_SIZE, _OTHER_MTIME, _FAILED, _SAME_ETAG, _OTHER_ETAG = 1, 2, 4, 8, 16  # flags of a listed key


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


@dataclass(frozen=True)
class Selection:
    """Which keys of a source are meant."""

    include: tuple[str, ...] = ()  # globs on whole keys, `*` crosses slashes; none: all
    exclude: tuple[str, ...] = ()

    def pattern(self) -> re.Pattern[str]:
        """Matches the keys that are meant."""
        no = "".join(f"(?!{fnmatch.translate(glob)})" for glob in self.exclude)
        yes = "|".join(fnmatch.translate(glob) for glob in self.include or ("*",))
        return re.compile(f"{no}(?:{yes})")


@dataclass(frozen=True)
class Listing:
    """Images below a source, in ascending order of the keys' UTF-8 bytes."""

    rows: pa.Table  # key, size, mtime, etag32
    other: int


def list_source(source: Location, selection: Selection) -> Listing:
    """All images of the source, in little more memory than their keys; FileNotFoundError: no such source."""
    other, ordered, last = 0, True, ""
    batches = []
    pattern = selection.pattern()
    entries = connect(source).list()
    while chunk := list(islice(entries, _CHUNK)):
        meant = [entry for entry in chunk if _is_image(entry.path)]
        other += len(chunk) - len(meant)
        meant = [entry for entry in meant if pattern.match(entry.path)]
        keys = [entry.path for entry in meant]
        ordered = ordered and all(left < right for left, right in zip([last, *keys], keys, strict=False))
        last = keys[-1] if keys else last
        batches.append(_batch_of(meant))
    rows = pa.Table.from_batches(batches, _LISTED)
    return Listing(rows if ordered else rows.sort_by("key"), other)


def _is_image(key: str) -> bool:
    suffix = os.path.splitext(key)[1].lower()
    return suffix in SUFFIXES and (key.isascii() or _is_utf8(key))


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # a local name in another encoding
        return False
    return True


def _batch_of(entries: Sequence[Entry]) -> pa.RecordBatch:
    columns = (
        [entry.path for entry in entries],
        [entry.size for entry in entries],
        [entry.mtime for entry in entries],
        [_etag32(entry.etag) for entry in entries],
    )
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _LISTED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_LISTED)


def _etag32(etag: str | None) -> int | None:
    if etag is None:
        return None
    return int.from_bytes(hashlib.sha256(etag.encode()).digest()[:4], "little", signed=True)


def compare(
    listing: Listing, archive: Archive | None, source: Location, selection: Selection, retry_failures: bool
) -> tuple[pa.Table, Changes]:
    """Rows for a plan, without captions, and the count of all others.

    A key has changed where its size has, or its ETag; where no ETags are known, where its time has.
    """
    rows, count = listing.rows, len(listing.rows)
    runs: list[str] = []
    held = np.full(count, -1, np.int32)  # place in `runs` of the archived row's run; -1: a new key
    flags = np.zeros(count, np.uint8)
    deleted = 0
    if archive is not None:
        deleted = _mark(rows, archive, str(source), selection, runs, held, flags)
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
    selection: Selection,
    runs: list[str],
    held: NDArray[np.int32],
    flags: NDArray[np.uint8],
) -> int:
    """Sets `runs`, `held`, `flags` from the archive's table; how many keys it holds that the source lacks."""
    gone: Counter[str] = Counter()  # by run
    pattern = selection.pattern()
    for batch in _archived(archive):
        keys = batch["key"]
        first, matches = _matches(rows["key"], keys)
        there = np.flatnonzero(matches >= 0)
        places, theirs = first + there, matches[there]
        mine = rows.take(pa.array(places))
        archived = batch.take(pa.array(theirs))
        for run in pc.unique(archived["run"]).to_pylist():
            if run not in runs:
                runs.append(run)
        held[places] = pc.index_in(archived["run"], value_set=pa.array(runs)).to_numpy(zero_copy_only=False)
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
            if pattern.match(key)
        )
    sources = {run: archive.plan(run).head.source for run in {*runs, *gone}}
    for run in runs:
        if sources[run] != source:
            # The table holds each key once: going on would replace that source's images.
            raise ValueError(
                f"{archive.location} holds keys of {sources[run]} under the same names as {source}: "
                "expected another archive, or another --include"
            )
    return sum(count for run, count in gone.items() if sources[run] == source)


def _archived(archive: Archive) -> Iterator[pa.RecordBatch]:
    """key, source_bytes, mtime, run and failed of all rows, a few thousand at a time."""
    query = "select key, source_bytes, mtime, run, failure is not null as failed from images"
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("source_bytes", pa.int64()),
            ("mtime", pa.int64()),
            ("run", pa.string()),
            ("failed", pa.bool_()),
        ]
    )
    for batch in QueryBuilder().register("images", archive.table).execute(query):
        yield pa.record_batch(batch).cast(schema)  # DataFusion gives views


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
        for batch in archive.plan(run).rows.select(["key", "etag32"]).to_batches(max_chunksize=_CHUNK):
            first, matches = _matches(rows["key"], batch["key"])
            there = np.flatnonzero((matches >= 0) & (held[first : first + len(matches)] == number))
            places = first + there
            mine = rows["etag32"].take(pa.array(places))
            same = pc.equal(
                mine, batch["etag32"].take(pa.array(matches[there]))
            )  # null where one is not known
            flags[places] |= _SAME_ETAG * _numpy(pc.fill_null(same, False))
            flags[places] |= _OTHER_ETAG * _numpy(pc.fill_null(pc.invert(same), False))


def _numpy(booleans: pa.ChunkedArray | pa.Array) -> NDArray[np.uint8]:
    """0 and 1."""
    found: NDArray[np.uint8] = np.asarray(booleans).astype(np.uint8)
    return found


def plan_run(
    archive: Archive,
    source: Location,
    spec: CodecSpec,
    selection: Selection,
    captions: str,
    caption_table: Location | None,
    digest: bool,
    shard_records: Callable[[int], int],  # records in all -> records of a shard, at most
    retry_failures: bool,
) -> tuple[Plan | None, Changes]:
    """Lists the source and freezes what is to be done; None where that is nothing."""
    check_apart(source, archive.location)
    listing = list_source(source, selection)
    archive.refresh()  # what the plan is compared with is no older than the listing
    rows, changes = compare(listing, archive, source, selection, retry_failures)
    if not len(rows):
        return None, changes
    if caption_table is not None:
        rows = with_captions(rows, caption_table)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = PlanHead(
        str(source), spec.id, created, archive.version, captions, digest, shard_records(len(rows))
    )
    return archive.write_plan(head, rows), changes


def with_captions(rows: pa.Table, caption_table: Location) -> pa.Table:
    """The rows with the captions that the table has for them."""
    table = read_caption_table(caption_table)
    places = pc.index_in(rows["key"], value_set=table["key"].combine_chunks())
    place = rows.column_names.index("caption")
    return rows.set_column(place, PLAN_SCHEMA.field("caption"), table["caption"].take(places))


def check_apart(source: Location, archive: Location) -> None:
    """ValueError where one lies within the other: an archive must not list itself or write below its source."""
    if source.scheme != archive.scheme:
        return
    endpoints = {dict(location.options).get("endpoint_url") for location in (source, archive)}
    if len(endpoints) == 2 and None not in endpoints:
        return
    one, other = (_folder(location) for location in (source, archive))
    if one.startswith(other) or other.startswith(one):
        raise ValueError(f"source {source} and archive {archive}, expected neither to lie within the other")


def _folder(location: Location) -> str:
    url = os.path.realpath(location.url) if location.scheme == LOCAL else location.url
    return url.rstrip("/") + "/"
