"""The objects of an archive beside its parts, each against the hash that names it or vouches for it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from manifests.archive import Summary, log_file, summary_path
from manifests.mending import mended
from manifests.part import short_hash
from manifests.plan import Plan, head_of_plan, is_plan_of, plan_of
from manifests.records import CodecSpec
from manifests.storage import Store
from pipelines.findings import Finding
from pipelines.weights import chunks


@dataclass
class Objects:
    """What was seen of an archive, parts apart."""

    sizes: dict[str, int]  # path of any object -> bytes
    runs: set[str] = field(default_factory=set)  # that have a plan, be it damaged
    finished: set[str] = field(default_factory=set)  # runs with a summary
    specs: dict[str, CodecSpec | None] = field(default_factory=dict)  # None: damaged
    vouched: dict[str, set[str]] = field(default_factory=dict)  # path -> sha256 of it in intact summaries

    def plan(self, store: Store, run: str) -> Plan | None:
        """None where it is missing or damaged."""
        try:
            return plan_of(run, store.read(f"runs/{run}/plan.parquet"))
        except (FileNotFoundError, ValueError):
            return None


def check_objects(store: Store, objects: Objects) -> Iterator[Finding]:
    """Reads all that `objects` lists, parts apart, and fills it."""
    for path in sorted(objects.sizes):
        match path.split("/"):
            case ["runs", run, "plan.parquet"]:
                objects.runs.add(run)
                yield from _check_plan(store, path, run)
            case ["runs", run, name] if name.startswith("summary-"):
                objects.finished.add(run)
                yield from _check_summary(store, objects, path, run)
            case ["specs", name] if name.endswith(".json"):
                yield from _check_spec(store, objects, path, name.removesuffix(".json"))
            case ["weights", name] if name.endswith(".safetensors"):
                if _sha256(store, path) != name.removesuffix(".safetensors"):
                    yield _damaged(path, "its sha256 is not its name")
            case ["images", *_] | ["FORMAT.md"]:
                continue
            case _:
                yield Finding("orphan", path, "no object of this format")
    yield from _check_weights(objects)
    yield from _check_vouched(store, objects)


def _damaged(path: str, words: str) -> Finding:
    return Finding("damaged", path, words)


def _sha256(store: Store, path: str) -> str:
    found = hashlib.sha256()
    for chunk in chunks(store, path):
        found.update(chunk)
    return found.hexdigest()


def _check_plan(store: Store, path: str, run: str) -> Iterator[Finding]:
    content = store.read(path)
    if not is_plan_of(run, content):
        yield _damaged(path, f"its sha256 does not begin with {run[-10:]}")
        return
    try:
        head_of_plan(run, content)
    except ValueError as error:
        yield _damaged(path, str(error))


def _check_summary(store: Store, objects: Objects, path: str, run: str) -> Iterator[Finding]:
    content = store.read(path)
    if path != summary_path(run, content):
        yield _damaged(path, "its sha256 does not begin with its name's hash")
        return
    try:
        summary = Summary.from_json(content)
    except ValueError as error:
        yield _damaged(path, str(error))
        return
    for vouched, sha256 in summary.objects.items():
        objects.vouched.setdefault(vouched, set()).add(sha256)


def _check_spec(store: Store, objects: Objects, path: str, spec_id: str) -> Iterator[Finding]:
    content = store.read(path)
    objects.specs[spec_id] = None
    if short_hash(content) == spec_id:
        try:
            objects.specs[spec_id] = CodecSpec.from_json(content)
        except ValueError as error:
            yield _damaged(path, str(error))
        return
    whole = mended(content, spec_id, 0, min(len(content), 10_000))
    told = "" if whole is None else ": one bit is flipped, which restoring mends"
    yield _damaged(path, f"its sha256 does not begin with its name{told}")


def _check_weights(objects: Objects) -> Iterator[Finding]:
    for spec_id, spec in objects.specs.items():
        for sha256 in spec.weights if spec is not None else ():
            path = f"weights/{sha256}.safetensors"
            if path not in objects.sizes:
                yield Finding("missing", path, f"spec {spec_id} names it")


def _check_vouched(store: Store, objects: Objects) -> Iterator[Finding]:
    """FORMAT.md and the log, as the summaries of finished runs saw them."""
    log = [path for path in objects.sizes if path.startswith("images/_delta_log/") and log_file(path)]
    for path in sorted({"FORMAT.md", *log, *objects.vouched}):
        if path not in objects.sizes:
            yield Finding(
                "missing", path, "a run's summary vouches for it" if path in objects.vouched else ""
            )
        elif path not in objects.vouched:
            yield from _check_unvouched(store, path)
        elif _sha256(store, path) not in objects.vouched[path]:
            yield _damaged(path, "its sha256 is not the one in the runs' summaries")


def _check_unvouched(store: Store, path: str) -> Iterator[Finding]:
    """What no finished run has seen: a log entry is JSON lines, more is not known of it."""
    yield Finding("unvouched", path, "no summary of a finished run holds its sha256")
    if path.endswith(".json"):
        try:
            for line in store.read(path).decode().splitlines():
                json.loads(line)
        except ValueError as error:
            yield _damaged(path, f"no JSON lines: {error}")
