"""A source as it is now, and an archive -> the frozen plan of a run: keys that are new or have changed."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from manifests.archive import Archive
from manifests.plan import PLAN_SCHEMA, Plan, PlanHead
from manifests.records import CodecSpec
from manifests.storage import LOCAL, Entry, Location, connect
from pipelines.captions import read_caption_table
from pipelines.changes import Changes, Listing, compare
from pipelines.regions import with_boxes

__all__ = ["Changes", "Selection", "check_apart", "list_source", "plan_run", "with_captions"]

# What people call images. What this program cannot read (.heic) fails by name instead of going unnoticed.
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".ico", ".icns", ".pcx", ".sgi", ".qoi", ".dds", ".psd",
))  # fmt: skip
_CHUNK = 4_000  # keys that exist as Python objects at a time
_LISTED = pa.schema([PLAN_SCHEMA.field(name) for name in ("key", "size", "mtime", "etag32")])


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


def plan_run(
    archive: Archive,
    source: Location,
    spec: CodecSpec,
    selection: Selection,
    captions: str,
    caption_table: Location | None,
    keep: str,
    boxes: Location | None,
    digest: bool,
    shard_records: Callable[[int], int],  # records in all -> records of a shard, at most
    retry_failures: bool,
) -> tuple[Plan | None, Changes]:
    """Lists the source and freezes what is to be done; None where that is nothing."""
    check_apart(source, archive.location)
    listing = list_source(source, selection)
    archive.refresh()  # what the plan is compared with is no older than the listing
    rows, changes = compare(listing, archive, str(source), selection.pattern(), retry_failures)
    if not len(rows):
        return None, changes
    if caption_table is not None:
        rows = with_captions(rows, caption_table)
    if boxes is not None:
        rows = with_boxes(rows, boxes)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = PlanHead(
        str(source), spec.id, created, archive.version, captions, digest, shard_records(len(rows)), keep
    )
    return archive.write_plan(head, rows), changes


def with_captions(rows: pa.Table, caption_table: Location) -> pa.Table:
    """The rows with the captions that the table has for them."""
    table = read_caption_table(caption_table)
    places = pc.index_in(rows["key"], value_set=table["key"].combine_chunks())
    place = rows.column_names.index("caption")
    return rows.set_column(place, PLAN_SCHEMA.field("caption"), table["caption"].take(places))


def check_apart(source: Location, archive: Location) -> None:
    """ValueError where one lies within the other: an archive must not list itself, or write to its source."""
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
