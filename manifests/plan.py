"""Plans: the frozen listing of a run, as a Parquet object that its run is named after."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.part import FORMAT
from manifests.records import check_members, object_of

PLAN_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("mtime", pa.int64(), nullable=False),  # seconds since 1970, UTC
        pa.field("etag32", pa.int32()),
        pa.field("replaces", pa.string()),  # run of the row that this one is to replace
        pa.field("caption", pa.string()),
    ]
)
# A further column where the run was given boxes: JSON, [[left, top, right, bottom], ...]; null: all is coded.
BOXES_FIELD = pa.field("boxes", pa.string())
_ENCODING = {
    "key": "DELTA_BYTE_ARRAY",
    "size": "DELTA_BINARY_PACKED",
    "mtime": "DELTA_BINARY_PACKED",
    "etag32": "PLAIN",
    "caption": "DELTA_LENGTH_BYTE_ARRAY",
}


@dataclass(frozen=True)
class PlanHead:
    """What a run is about, beside its rows."""

    source: str  # URL without credentials
    spec: str  # spec id
    created: str  # ISO 8601, UTC, whole seconds: "2026-01-31T23:59:59Z"
    table_version: int  # of images/, that the listing was compared with
    captions: str  # "none", "sidecar", "table", "tags" or "model TOKENS NAME"
    digest: bool
    shard_records: int
    # What is coded of pictures, the rest is drawn: "none" (all), "boxes", "mask", "detector SCORE CLASSES NAME" or
    # "segmenter CLASSES NAME". The first plans do not say.
    keep: str = "none"


@dataclass(frozen=True)
class Shard:
    """Rows first..last (included) of a plan, encoded together into one part."""

    run: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def halves(self) -> tuple["Shard", "Shard"]:
        """Two shards of at least one row each; this one has at least two."""
        middle = (self.first + self.last) // 2
        return Shard(self.run, self.first, middle), Shard(self.run, middle + 1, self.last)


@dataclass(frozen=True)
class Plan:
    """A run's frozen listing: row n is a key, rows in ascending order of the keys' UTF-8 bytes."""

    run: str
    head: PlanHead
    rows: pa.Table  # PLAN_SCHEMA, and `boxes` where there are some

    def __len__(self) -> int:
        return len(self.rows)


def plan_to_parquet(head: PlanHead, rows: pa.Table) -> tuple[str, bytes]:
    """The run's name, made of its time and its plan's hash, and the plan's bytes."""
    sink = io.BytesIO()
    boxed = BOXES_FIELD.name in rows.column_names
    with pq.ParquetWriter(
        sink,
        PLAN_SCHEMA.append(BOXES_FIELD) if boxed else PLAN_SCHEMA,
        compression="ZSTD",
        use_dictionary=["replaces"],
        column_encoding=_ENCODING,
        write_statistics=["key"],
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.add_key_value_metadata({"archiver": json.dumps({"format": FORMAT, **asdict(head)})})
        writer.write_table(rows, row_group_size=50_000)
    content = sink.getvalue()
    time = head.created.replace("-", "").replace(":", "").removesuffix("Z")
    return f"{time}-{hashlib.sha256(content).hexdigest()[:10]}", content


def plan_of(run: str, content: bytes) -> Plan:
    """Inverse of `plan_to_parquet`; ValueError where the bytes are not those that the run is named after."""
    with _opened(run, content) as file:
        return Plan(run, _head(run, file), file.read(use_threads=False))  # see Source.read in salvage.py


def head_of_plan(run: str, content: bytes) -> PlanHead:
    """The head alone of what `plan_of` gives."""
    with _opened(run, content) as file:
        return _head(run, file)


def source_of(tail: bytes) -> str | None:
    """The source that a plan names, from its last bytes; None where they do not say.

    Not by pyarrow: only the hash of the whole plan tells whether its footer is damaged, and pyarrow aborts the
    process over some damaged ones.
    """
    place = tail.rfind(b'{"format": ')
    if place < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(tail[place:].decode(errors="replace"))
    except ValueError:
        return None
    return str(found["source"]) if "source" in found else None


def batches_of(run: str, content: bytes, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of what `plan_of` gives, a few thousand rows at a time."""
    with _opened(run, content) as file:
        _head(run, file)
        yield from file.iter_batches(batch_size=20_000, columns=list(columns), use_threads=False)


def _opened(run: str, content: bytes) -> pq.ParquetFile:
    if not is_plan_of(run, content):
        raise ValueError(f"plan of run {run} is damaged: its sha256 does not begin with {run[-10:]}")
    return pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)


def _head(run: str, file: pq.ParquetFile) -> PlanHead:
    what = f"the plan of run {run}"
    found = object_of((file.metadata.metadata or {}).get(b"archiver", b"{}"), what)
    version = found.pop("format", None)
    if version != FORMAT:
        raise ValueError(f"plan format {version!r} of run {run}, this program reads {FORMAT}")
    check_members(found, PlanHead.__annotations__, what, optional=("keep",))
    if more := sorted(found.keys() - PlanHead.__annotations__.keys()):
        raise ValueError(f"{what} says {more}, which only a newer program knows")
    return PlanHead(**found)


def is_plan_of(run: str, content: bytes) -> bool:
    """Whether the run is named after these bytes."""
    return hashlib.sha256(content).hexdigest()[:10] == run[-10:]


def open_ranges(count: int, committed: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges of rows 0..count-1 that no committed (first, last) covers.

    Example: open_ranges(10, [(2, 4), (7, 7)]) -> [(0, 1), (5, 6), (8, 9)]
    """
    gaps, start = [], 0
    for first, last in sorted(committed):
        if first > start:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    if start < count:
        gaps.append((start, count - 1))
    return gaps


def shards_of(
    plan: Plan, committed: Sequence[tuple[int, int]], shard_bytes: int = 2_000_000_000
) -> list[Shard]:
    """Cuts what is open of a plan at `shard_records` rows and at `shard_bytes` bytes of source files."""
    sizes = plan.rows["size"].to_numpy()
    shards = []
    for gap_first, gap_last in open_ranges(len(plan), committed):
        first, filled = gap_first, 0
        for row in range(gap_first, gap_last + 1):
            full = row - first >= plan.head.shard_records or filled + sizes[row] > shard_bytes
            if row > first and full:
                shards.append(Shard(plan.run, first, row - 1))
                first, filled = row, 0
            filled += int(sizes[row])
        shards.append(Shard(plan.run, first, gap_last))
    return shards
