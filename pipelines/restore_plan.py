"""What a restore is going to read: rows -> parts, requests, paths of files, and keys that are lost already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from manifests.archive import Archive
from manifests.part import BLOCK_BYTES, ROW_GROUP_RECORDS, ROW_GROUP_TEXT_BYTES, Damaged
from manifests.read import FOOTER_BYTES, read_at_once
from manifests.sparse import GAP_BYTES
from manifests.storage import S3, Location, Store
from pipelines.decode import Lost, why_not_archived
from pipelines.forbidden import forbidden
from pipelines.images import Format
from pipelines.names import alike, names_of, why_unusable
from pipelines.prices import Prices
from pipelines.reading import NOT_THERE, Reading, Search, why_lost
from pipelines.select import failures, keys_named, open_archive, select

_MOST_A_KEY = (
    ROW_GROUP_TEXT_BYTES // 2 + 20 * ROW_GROUP_RECORDS + 2 * BLOCK_BYTES
)  # bytes; texts shrink by half
_ONE_READ_FOOTER = 10_000_000  # bytes of a part whose footer is less than FOOTER_BYTES
_KEYS_BY_BOUNDS = 500  # so few keys are found by the log's bounds; for more, one scan tells their runs
_CLOSED = "its file would lie in the archive or its source"


@dataclass(frozen=True)
class RestoreJob:
    """Which rows become files, where, and of which format."""

    archive: Location
    output: Location
    where: str | None = None  # an SQL condition, see `select`
    keys: tuple[str, ...] | None = None
    limit: int | None = None
    format: Format = "png"
    overwrite: bool = False
    workers: int | None = 0  # None: as many as the cluster has room for; 0: this process
    gpu: bool = False


@dataclass(frozen=True)
class RestorePlan:
    """What a restore is going to read."""

    rows: int
    parts: int
    bytes: int  # of parts, at most
    requests: int  # GETs of parts, at most
    dollars: float  # these requests at S3's price, and a PUT for each file on S3; 0 on local disks
    lost: tuple[Lost, ...]  # keys that are no images of the archive, or that no file can be named after
    alike: tuple[str, ...]  # paths that differ in upper and lower case only: some file systems merge them


@dataclass(frozen=True)
class Prepared:
    """A plan, and what it takes to carry it out."""

    archive: Archive
    search: Search
    readings: list[Reading]
    names: Mapping[str, str]  # key -> path below the output
    plan: RestorePlan


def prepare(job: RestoreJob, prices: Prices) -> Prepared:
    """Writes nothing. ValueError for a job that makes no sense."""
    archive = open_archive(job.archive)
    closed = forbidden(archive, job.output)
    wanted, lost = _wanted(archive, job)
    names = names_of((key for key in wanted if why_unusable(key) is None), job.format)
    names = {key: name for key, name in names.items() if not name.startswith(closed)}
    runs = {key: wanted[key] for key in names}
    lost += [Lost(key, why_unusable(key) or _CLOSED) for key in wanted if key not in names]
    search = Search(archive.parts.values(), runs)
    readings, gone = search.begin()
    lost += [Lost(miss.key, miss.why) for miss in gone]
    reads = [_reads(archive.store, reading) for reading in readings]
    requests, size_bytes = sum(count for count, _ in reads), sum(size for _, size in reads)
    standard = prices.classes["STANDARD"]
    gets = requests if job.archive.scheme == S3 else 0
    puts = len(runs) if job.output.scheme == S3 else 0
    plan = RestorePlan(
        rows=len(runs),
        parts=len({reading.part.path for reading in readings}),
        bytes=size_bytes,
        requests=requests,
        dollars=(gets * standard.get_1k.value + puts * standard.put_1k.value) / 1000,
        lost=tuple(lost),
        alike=tuple(alike(names.values())),
    )
    return Prepared(archive, search, readings, names, plan)


def _wanted(archive: Archive, job: RestoreJob) -> tuple[dict[str, str | None], list[Lost]]:
    """Key -> its run, None where that is still to be found out; and what cannot be asked for."""
    keys = None if job.keys is None else sorted(set(job.keys))
    if job.limit is not None and job.limit < 0:
        raise ValueError(f"limit {job.limit}, expected 0 or more")
    named = keys_named(job.where) if keys is None and job.where is not None else None
    if named is not None:  # SQL would take five requests to find the part; the log's bounds take none
        keys, job = sorted(set(named)), replace(job, where=None)
    if keys is not None and job.where is None and len(keys) <= _KEYS_BY_BOUNDS:
        return dict.fromkeys(keys[: job.limit]), []
    damaged: dict[str, Damaged] = {}
    rows = select(archive, job.where, job.limit, keys, lambda found: damaged.update({found.key: found}))
    runs = dict(zip(rows["key"].to_pylist(), rows["run"].to_pylist(), strict=True))
    lost = [
        Lost(key, why_lost(found))
        for key, found in damaged.items()
        if key not in runs and (keys is None or key in set(keys))
    ]
    if keys is not None and job.where is None and job.limit is None:
        gone = [key for key in keys if key not in runs and key not in damaged]
        why = _failed(archive, gone)
        lost += [Lost(key, why.get(key, NOT_THERE)) for key in gone]
    return runs, lost


def _failed(archive: Archive, keys: Sequence[str]) -> dict[str, str]:
    """Those of the keys that are failures -> what to say of them."""
    if not keys:
        return {}
    found = failures(archive, keys=keys, tell=lambda damaged: None)
    return {row["key"]: why_not_archived(row["failure"]) for row in found.to_pylist()}


def _reads(store: Store, reading: Reading) -> tuple[int, int]:
    """Requests and bytes, at most: footers are not read to tell."""
    part, keys = reading.part, len(reading.keys)
    if read_at_once(part, keys, store):
        return 1, part.size
    # A key costs the columns of its row group and a block or two of bitstreams; both may be other keys' too.
    touched = min(keys, -(-part.size // BLOCK_BYTES))
    size_bytes = min(part.size + touched * GAP_BYTES, touched * _MOST_A_KEY)
    footer = 1 + (part.size > _ONE_READ_FOOTER)
    return footer + 2 * touched, footer * FOOTER_BYTES + size_bytes
