"""An archive -> what in it is damaged, missing, doubled or left over, by name."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.archive import Archive
from manifests.part import Part, describe, parse_path, records_of
from manifests.plan import open_ranges
from manifests.read import read_records, read_whole
from manifests.records import Record
from manifests.storage import Location, Store, connect
from pipelines.codec import LoadCodec
from pipelines.decode import Decoder, Lost
from pipelines.findings import Finding
from pipelines.reading import ahead, why_lost
from pipelines.select import open_archive
from pipelines.verify_objects import Objects, check_objects

__all__ = ["Checked", "Finding", "verify"]


@dataclass(frozen=True)
class Checked:
    """How far the check has come; the last one, how far it got."""

    parts: int
    all_parts: int
    objects: int  # parts included
    bytes: int
    records: int
    decoded: int  # images that were tried
    decode_seconds: float | None = None  # of one image that could be decoded, on average; None where none was


def verify(
    location: Location,
    decode_fraction: float,
    load_codec: LoadCodec,
    weights_cache: Path,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[Finding | Checked]:
    """Reads everything: each object against its hash, each record against its check, each plan against the table.

    A share of the images, the same for equal seeds, is decoded too. Findings come as they are found, a
    `Checked` after each part and at the end. ValueError where there is no archive.
    """
    if not 0 <= decode_fraction <= 1:
        raise ValueError(f"decode fraction {decode_fraction}, expected 0 to 1")
    store = connect(location)
    objects = Objects(_listed(store))
    if not any(path.startswith("images/_delta_log/") for path in objects.sizes):
        raise ValueError(f"no archive at {location}: expected a Delta Lake table below images/")
    yield from check_objects(store, objects)
    try:
        archive = open_archive(location)
        parts = dict(archive.parts)
    except (ValueError, OSError) as error:
        yield Finding("damaged", "images/_delta_log", f"the table cannot be opened: {error}")
        yield from _unnamed_parts(store, objects)
        return
    sample = _Sample(decode_fraction, seed, Decoder(archive, load_codec, weights_cache, device))
    table = _Table(archive, objects, sample)
    yield from table.check(parts)
    yield from _left_over(objects, parts)
    yield Checked(
        len(parts),
        len(parts),
        len(objects.sizes),
        sum(objects.sizes.values()),
        table.records,
        sample.decoded,
        sample.seconds / sample.restored if sample.restored else None,
    )


def _listed(store: Store) -> dict[str, int]:
    try:
        return {entry.path: entry.size for entry in store.list()}
    except FileNotFoundError:  # no such folder or bucket
        return {}


@dataclass
class _Sample:
    """Which images are decoded; a key's place in the sample depends on key and seed only."""

    fraction: float
    seed: int
    decoder: Decoder
    decoded: int = 0
    restored: int = 0
    seconds: float = 0.0  # that codecs took for those

    def takes(self, record: Record) -> bool:
        drawn = hashlib.blake2b(
            record.key.encode(), digest_size=8, key=self.seed.to_bytes(8, "little")
        ).digest()
        return record.image is not None and int.from_bytes(drawn, "little") < self.fraction * 2**64

    def check(self, records: list[Record]) -> Iterator[Finding]:
        chosen = [record for record in records if self.takes(record)]
        self.decoded += len(chosen)
        for outcome in self.decoder.decode(chosen):
            if isinstance(outcome, Lost):
                yield Finding("undecodable", outcome.key, outcome.why)
            else:
                self.restored += 1
                self.seconds += outcome.seconds


@dataclass
class _Table:
    """The parts of a table, one after the other."""

    archive: Archive
    objects: Objects
    sample: _Sample
    records: int = 0
    read_bytes: int = 0
    keys: list[pa.Array] = field(default_factory=list)  # of each part, as far as they can be read
    damaged: set[str] = field(default_factory=set)  # keys whose record cannot be read
    unheld: list[pa.Array] = field(
        default_factory=list
    )  # keys that plans promise and their parts do not hold

    def check(self, parts: Mapping[str, Part]) -> Iterator[Finding | Checked]:
        by_run: dict[str, list[Part]] = {run: [] for run in self.objects.runs}
        for _, part in sorted(parts.items()):
            by_run.setdefault(part.run, []).append(part)
        done = 0
        for run, found in sorted(by_run.items()):
            held: list[pa.Array] = []
            for part, content in ahead(self._fetched, found, threads=2):
                keys: set[str] = set()
                yield from self._check_part(part, content, keys)
                held.append(pa.array(sorted(keys), pa.string()))
                done += 1
                self.read_bytes += part.size
                yield Checked(done, len(parts), done, self.read_bytes, self.records, self.sample.decoded)
            self.keys += held
            yield from self._check_coverage(run, found, held)
        yield from self._check_uniqueness()

    def _fetched(self, part: Part) -> tuple[Part, bytes | None]:
        try:
            return part, self.archive.store.read(f"images/{part.path}")
        except FileNotFoundError:
            return part, None

    def _check_part(self, part: Part, content: bytes | None, keys: set[str]) -> Iterator[Finding]:
        """Adds the keys of the part's intact records to `keys`."""
        path = f"images/{part.path}"
        rows = None if content is None else read_whole(content)
        if content is None:
            yield Finding("missing", path, f"{part.records:,} records")
        elif rows is None or describe(part.run, part.first, part.last, content, rows).hash != part.hash:
            yield Finding("damaged", path, "its sha256 does not begin with its name's hash")
            rows = None
        elif describe(part.run, part.first, part.last, content, rows) != part:
            yield Finding("damaged", "images/_delta_log", f"what it says of {path} is not so")
        if rows is None:
            found = list(read_records(self.archive.store, part))
        else:
            found = records_of(rows)
            yield from _check_columns(path, part, rows)
        intact = [record for record in found if isinstance(record, Record)]
        for record in found:
            if not isinstance(record, Record):
                self.damaged.add(record.key)
                yield Finding("damaged", record.key, f"{why_lost(record)}, in {path}")
        keys.update(record.key for record in intact)
        self.records += len(intact)
        for spec in sorted({record.spec for record in intact} - self.objects.specs.keys()):
            if not self.archive.store.exists(f"specs/{spec}.json"):  # it may be newer than the listing
                yield Finding("missing", f"specs/{spec}.json", f"records of {path} name it")
        yield from self.sample.check(intact)

    def _check_coverage(self, run: str, parts: list[Part], held: list[pa.Array]) -> Iterator[Finding]:
        """Whether the parts cover the plan, and hold what it promises."""
        plan = self.objects.plan(self.archive.store, run)
        if plan is None:
            if parts and run not in self.objects.runs:
                yield Finding("missing", f"runs/{run}/plan.parquet", f"{len(parts)} parts are of this run")
            return
        for first, last in open_ranges(len(plan), [(part.first, part.last) for part in parts]):
            rows = f"rows {first} to {last} of its plan are in no part"
            if run in self.objects.finished:
                yield Finding("missing", f"runs/{run}", rows)
            else:
                yield Finding("unfinished", f"runs/{run}", f"{rows}: run the same `archiver encode` again")
        here = pa.concat_arrays([pa.array([], pa.string()), *held])
        for part in parts:
            promised = plan.rows["key"].slice(part.first, part.last - part.first + 1)
            missing = pc.filter(promised, pc.invert(pc.is_in(promised, value_set=here)))
            self.unheld += missing.chunks

    def _check_uniqueness(self) -> Iterator[Finding]:
        """Each key once in the table, and each planned key somewhere: another run may have had it first."""
        keys = pa.concat_arrays([pa.array([], pa.string()), *self.keys])
        counts = pc.value_counts(keys)
        for entry in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist():
            yield Finding("doubled", entry["values"], f"{entry['counts']} rows have this key")
        unheld = pa.concat_arrays([pa.array([], pa.string()), *self.unheld])
        for key in pc.filter(unheld, pc.invert(pc.is_in(unheld, value_set=keys))).to_pylist():
            if key not in self.damaged:
                yield Finding("missing", key, "it is planned, and no part holds it")


def _check_columns(path: str, part: Part, rows: pa.Table) -> Iterator[Finding]:
    """What records do not tell: columns for queries only."""
    if not pc.all(pc.equal(rows["run"], part.run), min_count=0).as_py():
        yield Finding("damaged", path, f"column run, expected {part.run} throughout")
    if not rows["bitstream_bytes"].equals(pc.binary_length(rows["bitstream"])):
        yield Finding("damaged", path, "column bitstream_bytes is not the lengths of the bitstreams")


def _left_over(objects: Objects, parts: Mapping[str, Part]) -> Iterator[Finding]:
    for path in sorted(objects.sizes):
        name = path.removeprefix("images/")
        if name == path or name.startswith("_delta_log/") or name in parts:
            continue
        yield Finding("orphan", path, "not in the table: left by a crash, or replaced since")


def _unnamed_parts(store: Store, objects: Objects) -> Iterator[Finding | Checked]:
    """Without a table: every part that lies there, against the hash in its name."""
    parts = [
        path for path in sorted(objects.sizes) if path.startswith("images/") and "/_delta_log/" not in path
    ]
    bytes_, records = 0, 0
    for done, path in enumerate(parts, 1):
        content = store.read(path)
        bytes_ += len(content)
        try:
            hash_ = parse_path(path.removeprefix("images/"))[3]
        except ValueError as error:
            yield Finding("orphan", path, str(error))
            continue
        rows = read_whole(content)
        if hashlib.sha256(content).hexdigest()[:16] != hash_ or rows is None:
            yield Finding("damaged", path, "its sha256 does not begin with its name's hash")
        else:
            records += len(rows)
        yield Checked(done, len(parts), done, bytes_, records, 0)
