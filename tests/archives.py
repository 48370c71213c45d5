"""Records -> a finished archive, by the steps that `encode` takes; for tests of what reads archives."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from archiver.codecs import load_codec
from manifests import archive
from manifests.archive import Archive, Summary
from manifests.commit import commit
from manifests.part import Origin, Part, describe, table_of, to_parquet
from manifests.plan import PLAN_SCHEMA, Plan, PlanHead, Shard, shards_of
from manifests.records import CodecSpec, Record
from manifests.storage import Location
from pipelines.codec import Picture, Pixels

SPEC = CodecSpec("avif", 1, {"scale": 2, "quality": 35, "chroma": "4:2:0"})
_NO_LIMIT = 10**18  # bytes of source files in a shard: tests cut by the number of records only
FIRST_RUN = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def small_pictures(count: int, height: int = 24, width: int = 32) -> list[Pixels]:
    """Pictures that differ, quick to encode."""
    rng = np.random.default_rng(11)
    rows, columns = np.indices((height, width))
    pictures = []
    for _ in range(count):
        waves = [np.sin(rows * a + columns * b) for a, b in rng.uniform(0.05, 0.6, (3, 2))]
        pictures.append(np.rint(127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8))
    return pictures


def encoded(
    pictures: Sequence[Pixels], keys: Sequence[str], captions: bool = True, spec: CodecSpec = SPEC
) -> list[Record]:
    """Records of the pictures, with the captions "caption of <key>"."""
    codec = load_codec(spec, {}, "cpu")
    found = codec.encode(
        [
            Picture(pixels, f"caption of {key}" if captions else None)
            for pixels, key in zip(pictures, keys, strict=True)
        ]
    )
    return [
        Record(key, source_bytes=1000 + place, mtime=1_700_000_000 + place, spec=spec.id, image=image)
        for place, (key, image) in enumerate(zip(keys, found, strict=True))
    ]


def build(
    location: Location,
    records: Iterable[Record],
    shard_records: int = 1000,
    finish: bool = True,
    spec: CodecSpec = SPEC,
) -> Archive:
    """One run of the records, which all have one spec; in an archive that may exist already."""
    found = archive.create(location)
    plan, ordered = begin(found, records, shard_records, spec)
    commit(found, plan, [write(found, plan, ordered, shard) for shard in shards_of(plan, [], _NO_LIMIT)])
    if finish:
        summarise(found, plan, ordered)
    return found


def begin(
    found: Archive, records: Iterable[Record], shard_records: int = 1000, spec: CodecSpec = SPEC
) -> tuple[Plan, list[Record]]:
    """The run of the records, frozen, and none of its parts."""
    ordered = sorted(records, key=lambda record: record.key.encode())
    found.write_spec(spec)
    created = FIRST_RUN + timedelta(seconds=len(found.runs()))
    head = PlanHead(
        source="/photos",
        spec=spec.id,
        created=created.isoformat().replace("+00:00", "Z"),
        table_version=found.version,
        captions="sidecar",
        digest=False,
        shard_records=shard_records,
    )
    rows = pa.table(
        {
            "key": [record.key for record in ordered],
            "size": [record.source_bytes for record in ordered],
            "mtime": [record.mtime for record in ordered],
            "etag32": pa.nulls(len(ordered), pa.int32()),
            "replaces": pa.nulls(len(ordered), pa.string()),
            "caption": pa.nulls(len(ordered), pa.string()),
        },
        schema=PLAN_SCHEMA,
    )
    return found.write_plan(head, rows), ordered


def write(found: Archive, plan: Plan, ordered: Sequence[Record], shard: Shard) -> Part:
    """A part that the log does not name yet."""
    table = table_of(ordered[shard.first : shard.last + 1], plan.run)
    content = to_parquet(table, Origin(encode_seconds=0.5, device="cpu"))
    part = describe(plan.run, shard.first, shard.last, content, table)
    found.store.write(f"images/{part.path}", content)
    return part


def summarise(found: Archive, plan: Plan, records: Sequence[Record]) -> None:
    """Finishes the run."""
    images = sum(record.image is not None for record in records)
    parts = sum(part.run == plan.run for part in found.parts.values())
    found.write_summary(
        Summary(
            run=plan.run,
            finished="2026-01-31T13:00:00Z",
            images=images,
            failures=len(records) - images,
            encode_seconds={"cpu": 0.5 * parts},
            objects=dict(found.unvouched(set())),
        )
    )
