"""An archive: its table, plans, specs and weights, below one location."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from manifests.mending import mended
from manifests.part import FORMAT, SCHEMA, Part, parse_path, short_hash
from manifests.plan import Plan, PlanHead, head_of_plan, plan_of, plan_to_parquet
from manifests.records import CodecSpec, check_members, object_of
from manifests.storage import Location, Store, connect, delta_options, delta_uri

DESCRIPTION = f"archiver format {FORMAT}"
_CONFIGURATION = {
    # The log is part of the archive and small (~600 bytes a part): keep all of it, so that summaries can vouch for it.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 168 hours",
}


@dataclass(frozen=True)
class Summary:
    """What a finished run did, and the hashes of the objects that no name vouches for."""

    run: str
    finished: str  # ISO 8601, UTC
    images: int
    failures: int
    encode_seconds: dict[str, float]  # device -> seconds of its workers
    objects: dict[str, str]  # path -> sha256

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **vars(self)}, sort_keys=True, indent=1).encode()

    @staticmethod
    def from_json(content: bytes) -> "Summary":
        """Inverse of `to_json`, but for what newer programs say beside it; ValueError for what is no summary."""
        what = "a summary"
        found = object_of(content, what)
        if found.get("format") != FORMAT:
            raise ValueError(f"summary format of run {found.get('run')!r} is not {FORMAT}")
        check_members(found, Summary.__annotations__, what)
        return Summary(**{name: found[name] for name in Summary.__annotations__})


class Archive:
    """An open archive, as of the table version that `parts` was last read at."""

    def __init__(self, location: Location, parts: Mapping[str, Part] | None = None) -> None:
        """`parts`: of a version whose log another process has read; delta-rs does not work in forked ones."""
        self.location = location
        self.store: Store = connect(location)
        self._table = _load_table(location) if parts is None else None
        self._parts = None if parts is None else dict(parts)

    def refresh(self) -> None:
        """Looks at the table as it is now, with credentials as they are now."""
        self.store = connect(self.location)
        self._table = _load_table(self.location)
        self._parts = None

    @property
    def table(self) -> DeltaTable:
        if self._table is None:
            self._table = _load_table(self.location)
        return self._table

    @property
    def version(self) -> int:
        return int(self.table.version())

    @property
    def parts(self) -> dict[str, Part]:
        """Path below `images/` -> part, for all parts of this version."""
        if self._parts is None:
            self._parts = parts_of(self.table)
        return self._parts

    def ranges(self, run: str) -> list[tuple[int, int]]:
        """The (first, last) plan rows of the run that the table holds."""
        return sorted((part.first, part.last) for part in self.parts.values() if part.run == run)

    def runs(self) -> dict[str, str | None]:
        """Run -> the path of its summary, or None where it is not finished; oldest first."""
        found: dict[str, str | None] = {}
        for entry in self.store.list("runs"):
            _, _, rest = entry.path.partition("/")
            run, _, name = rest.partition("/")
            if re.fullmatch("summary-[0-9a-f]+\\.json", name):
                # Two drivers may finish a run at once: the smallest name counts.
                found[run] = min(entry.path, found.get(run) or entry.path)
            elif name == "plan.parquet":
                found.setdefault(run, None)
        return dict(sorted(found.items()))

    def plan_head(self, run: str) -> PlanHead:
        return head_of_plan(run, self.store.read(f"runs/{run}/plan.parquet"))

    def plan(self, run: str) -> Plan:
        return read_plan(self.store, run)

    def write_plan(self, head: PlanHead, rows: pa.Table) -> Plan:
        """Freezes a listing; the run exists from here on."""
        run, content = plan_to_parquet(head, rows)
        self.store.write(f"runs/{run}/plan.parquet", content)
        return Plan(run, head, rows)

    def summary(self, path: str) -> Summary:
        content = self.store.read(path)
        if path != summary_path(path.split("/")[1], content):
            raise ValueError(f"{path} is damaged: its sha256 does not begin with its name's hash")
        return Summary.from_json(content)

    def write_summary(self, summary: Summary) -> None:
        content = summary.to_json()
        self.store.write(summary_path(summary.run, content), content)

    def spec(self, spec_id: str) -> CodecSpec:
        """ValueError where the object is not the one that its name promises, by more than one bit."""
        content = self.store.read(f"specs/{spec_id}.json")
        if short_hash(content) != spec_id:
            whole = mended(content, spec_id, 0, min(len(content), 10_000))
            if whole is None:
                raise ValueError(f"specs/{spec_id}.json is damaged: its sha256 does not begin with its name")
            content = whole
        return CodecSpec.from_json(content)

    def specs(self) -> dict[str, CodecSpec]:
        return {spec_id: self.spec(spec_id) for spec_id in self.spec_ids()}

    def spec_ids(self) -> list[str]:
        """Of all specs that lie there, damaged ones included."""
        found = (re.fullmatch("specs/([0-9a-f]+)\\.json", entry.path) for entry in self.store.list("specs"))
        return sorted(match[1] for match in found if match)

    def write_spec(self, spec: CodecSpec) -> None:
        """Leaves one that is there alone: objects are written once."""
        path = f"specs/{spec.id}.json"
        if not self.store.exists(path):
            self.store.write(path, spec.to_json())

    def unvouched(self, known: set[str]) -> Iterator[tuple[str, str]]:
        """Path and sha256 of FORMAT.md and every log file that is not in `known`: objects not named by their hash."""
        paths = ["FORMAT.md", *(e.path for e in self.store.list("images/_delta_log") if log_file(e.path))]
        for path in paths:
            if path not in known:
                yield path, hashlib.sha256(self.store.read(path)).hexdigest()


def read_plan(store: Store, run: str) -> Plan:
    """ValueError where the plan is not the one that the run is named after."""
    return plan_of(run, store.read(f"runs/{run}/plan.parquet"))


def summary_path(run: str, content: bytes) -> str:
    return f"runs/{run}/summary-{short_hash(content)}.json"


def log_file(path: str) -> bool:
    """Whether a path is a log entry or checkpoint; `_last_checkpoint` is a hint that is overwritten."""
    return path.endswith((".json", ".parquet"))


def exists(location: Location) -> bool:
    """Whether an archive lies there."""
    return bool(DeltaTable.is_deltatable(_table_uri(location), storage_options=delta_options(location)))


def create(location: Location) -> Archive:
    """An empty archive; the one that lies there already where another driver was faster."""
    store = connect(location)
    store.write("FORMAT.md", files("manifests").joinpath("FORMAT.md").read_bytes())
    DeltaTable.create(
        _table_uri(location),
        schema=Schema.from_arrow(SCHEMA),
        mode="ignore",
        name="archiver",
        description=DESCRIPTION,
        configuration=_CONFIGURATION,
        storage_options=delta_options(location),
    )
    return Archive(location)


def _table_uri(location: Location) -> str:
    return f"{delta_uri(location)}/images"


def _load_table(location: Location, version: int | None = None) -> DeltaTable:
    try:
        table = DeltaTable(_table_uri(location), version=version, storage_options=delta_options(location))
    except TableNotFoundError:
        raise ValueError(f"no archive at {location}: expected a Delta Lake table below images/") from None
    except DeltaError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the log of {location} cannot be read ({reason}): `archiver verify` names the damaged file"
        ) from error
    found = table.metadata().description
    if found != DESCRIPTION:
        raise ValueError(f"{location} holds {found!r}, this program reads {DESCRIPTION!r}")
    return table


def paths_at(location: Location, version: int) -> frozenset[str]:
    """The paths of the parts that the table held at a version."""
    return frozenset(parts_of(_load_table(location, version)))


def parts_of(table: DeltaTable) -> dict[str, Part]:
    """Path below `images/` -> part, as the log tells it."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if not len(actions):
        return {}
    names = ("path", "size_bytes", "num_records", "min.key", "max.key")
    columns = [
        actions[name].to_pylist() if name in actions.column_names else [None] * len(actions) for name in names
    ]
    parts = {}
    for path, size, records, low, high in zip(*columns, strict=True):
        run, first, last, hash_ = parse_path(path)
        parts[path] = Part(run, first, last, hash_, size, records, low, high)
    return parts
