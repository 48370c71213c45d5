"""Finished parts -> the table: each key exactly once, whoever else is writing (FORMAT.md, Commits)."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from manifests.archive import Archive, paths_at
from manifests.part import SCHEMA, Part, describe, parse_path, to_parquet
from manifests.plan import Plan, open_ranges
from manifests.read import origin_of, read_whole

APPLICATION = "archiver"  # one id for all drivers: concurrent commits conflict, whatever they hold
ATTEMPTS = 50


@dataclass(frozen=True)
class _Changes:
    """One commit: parts that come, and parts that they replace."""

    added: tuple[Part, ...]
    removed: tuple[Part, ...]
    spared: Mapping[str, str]  # key -> why its newer file could not be archived: its image stays


def commit(
    archive: Archive,
    plan: Plan,
    parts: Sequence[Part],
    tell: Callable[[str, str], None] = lambda key, why: None,
) -> list[Part]:
    """Adds those of the run's parts to the table that it lacks; the parts that this call added.

    An image gives way to a newer image alone: `tell` hears of each key whose failure is left out for one, and
    why it failed. Afterwards `archive` is at a version that holds the parts. Drivers that commit at the same
    time are waited for.
    """
    known = _paths_when_planned(archive, plan)
    for attempt in range(ATTEMPTS):
        archive.refresh()
        fresh = _not_covered(parts, archive.ranges(plan.run))
        if not fresh:
            return []
        _check_stored(archive, fresh)
        changes = _reconcile(archive, plan, fresh, known)
        try:
            _write_commit(archive, changes)
        except CommitFailedError:
            # Seconds at most: every conflict is another driver's success.
            time.sleep(random.uniform(0, min(0.05 * 2**attempt, 2.0)))
            continue
        archive.refresh()
        for key, why in sorted(changes.spared.items()):
            tell(key, why)
        return [part for part in changes.added if part.run == plan.run]
    raise TimeoutError(f"{ATTEMPTS} commits to {archive.location} in a row met another driver's")


def adoptable(archive: Archive, plan: Plan) -> list[Part]:
    """Finished parts that the table lacks, one a range, the smallest name first; each holds all its keys."""
    found, taken = [], archive.ranges(plan.run)
    for entry in sorted(archive.store.list(f"images/{plan.run}"), key=lambda entry: entry.path):
        path = entry.path.removeprefix("images/")
        try:
            run, first, last, hash_ = parse_path(path)
        except ValueError:
            continue
        if path in archive.parts or any(first <= t_last and t_first <= last for t_first, t_last in taken):
            continue
        content = archive.store.read(entry.path)
        part = Part(run, first, last, hash_, len(content), 0, None, None)
        table = read_whole(content)
        if table is None or describe(run, first, last, content, table).hash != hash_:
            continue  # torn or damaged: its keys are encoded again
        if not _lacks_nothing(archive, plan, part, table):
            continue
        found.append(describe(run, first, last, content, table))
        taken.append((first, last))
    return found


def _lacks_nothing(archive: Archive, plan: Plan, part: Part, table: pa.Table) -> bool:
    planned = plan.rows["key"].slice(part.first, part.last - part.first + 1)
    missing = pc.filter(planned, pc.invert(pc.is_in(planned, value_set=table["key"].combine_chunks())))
    return len(missing) == 0 or len(_present(archive, missing, _foreign(archive, plan, frozenset()))) == len(
        missing
    )


def _paths_when_planned(archive: Archive, plan: Plan) -> frozenset[str]:
    """Parts whose keys the plan has taken into account; none where the log no longer reaches back."""
    try:
        return paths_at(archive.location, plan.head.table_version)
    except (ValueError, OSError):
        return frozenset()


def _not_covered(parts: Sequence[Part], covered: Iterable[tuple[int, int]]) -> list[Part]:
    """Parts that overlap neither a committed range nor each other, smallest name first."""
    taken, fresh = list(covered), []
    for part in sorted(parts, key=lambda part: part.path):
        if not any(part.first <= last and first <= part.last for first, last in taken):
            fresh.append(part)
            taken.append((part.first, part.last))
    return fresh


def _check_stored(archive: Archive, parts: Iterable[Part]) -> None:
    for part in parts:
        size = archive.store.size(f"images/{part.path}")
        if size != part.size:
            # A committed path without its object would break every later read of the table.
            raise FileNotFoundError(f"images/{part.path}: expected {part.size} bytes, the store has {size}")


def _foreign(archive: Archive, plan: Plan, known: frozenset[str]) -> list[Part]:
    """Parts of other runs that the plan could not take into account."""
    return [part for path, part in archive.parts.items() if part.run != plan.run and path not in known]


def _present(archive: Archive, keys: pa.ChunkedArray, parts: Iterable[Part]) -> pa.Array:
    """Those of the keys, in ascending order, that lie in the parts."""
    return pa.concat_arrays([pa.array([], pa.string()), *_held(archive, keys, parts).values()])


def _held(archive: Archive, keys: pa.ChunkedArray, parts: Iterable[Part]) -> dict[str, pa.Array]:
    """Path of a part -> those of the keys, in ascending order, that it holds."""
    found: dict[str, pa.Array] = {}
    for part in parts if len(keys) else ():
        if part.spans(keys[0].as_py(), keys[-1].as_py()):
            held = _whole(part, archive.store.read(f"images/{part.path}"))["key"].combine_chunks()
            found[part.path] = pc.filter(held, pc.is_in(held, value_set=keys.combine_chunks()))
    return found


def _whole(part: Part, content: bytes) -> pa.Table:
    table = read_whole(content)
    if table is None:
        raise ValueError(f"images/{part.path} is damaged: run `archiver verify`")
    return table


def settled(archive: Archive, plan: Plan) -> frozenset[str]:
    """Keys of the plan's open ranges that other runs have added or replaced since it was made."""
    foreign = _foreign(archive, plan, _paths_when_planned(archive, plan))
    keys: set[str] = set()
    for first, last in open_ranges(len(plan), archive.ranges(plan.run)):
        keys |= _overtaken(archive, plan.rows.slice(first, last - first + 1), foreign)[0]
    return frozenset(keys)


def _reconcile(archive: Archive, plan: Plan, fresh: list[Part], known: frozenset[str]) -> _Changes:
    """Drops keys that other runs have settled since the plan, takes replaced keys out of their old parts."""
    added: list[Part] = []
    all_spared: dict[str, str] = {}
    doomed: defaultdict[str, set[str]] = defaultdict(set)  # path of an old part -> keys to take out of it
    foreign = _foreign(archive, plan, known)
    for part in fresh:
        rows = plan.rows.slice(part.first, part.last - part.first + 1)
        drop, replaced = _overtaken(archive, rows, foreign)
        spared = _spared(archive, part, replaced)
        for path, keys in replaced.items():
            if left := keys - spared.keys():
                doomed[path] |= left
        drop |= spared.keys()
        all_spared |= spared
        added.append(_without(archive, part, drop) if drop else part)
    removed = [archive.parts[path] for path in doomed]
    rewritten = [_without(archive, part, doomed[part.path]) for part in removed]
    return _Changes((*added, *rewritten), tuple(removed), all_spared)


def _spared(archive: Archive, part: Part, replaced: Mapping[str, set[str]]) -> dict[str, str]:
    """Keys of which the part holds a failure, and older parts, by path, an image -> why it failed."""
    if not replaced:
        return {}
    replacing = set[str]().union(*replaced.values())
    spared = {key: why for key, why in _failures(archive, part).items() if key in replacing}
    for path in [path for path, keys in replaced.items() if keys & spared.keys()]:
        for key in _failures(archive, archive.parts[path]):
            spared.pop(key, None)
    return spared


def _failures(archive: Archive, part: Part) -> dict[str, str]:
    table = _whole(part, archive.store.read(f"images/{part.path}"))
    failed = table.filter(pc.is_valid(table["failure"])).select(["key", "failure"])
    return dict(zip(*(column.to_pylist() for column in failed.columns), strict=True))


def _overtaken(
    archive: Archive, rows: pa.Table, foreign: Iterable[Part]
) -> tuple[set[str], dict[str, set[str]]]:
    """Keys of the plan's rows that other runs have settled since; path -> keys that the others replace."""
    overtaken = set(_present(archive, rows.filter(pc.is_null(rows["replaces"]))["key"], foreign).to_pylist())
    replaced: dict[str, set[str]] = {}
    for run in pc.unique(pc.drop_null(rows["replaces"])).to_pylist():
        replacing = rows.filter(pc.equal(rows["replaces"], run))["key"]
        older = [old for old in archive.parts.values() if old.run == run]
        held = {path: set(keys.to_pylist()) for path, keys in _held(archive, replacing, older).items()}
        replaced |= {path: keys for path, keys in held.items() if keys}
        overtaken |= set(replacing.to_pylist()).difference(*held.values())
    return overtaken, replaced


def _without(archive: Archive, part: Part, keys: set[str]) -> Part:
    """The part written anew, under the same run and range, without some keys."""
    content = archive.store.read(f"images/{part.path}")
    table = _whole(part, content)
    kept = table.filter(pc.invert(pc.is_in(table["key"], value_set=pa.array(sorted(keys), pa.string()))))
    rewritten = to_parquet(kept, origin_of(content))
    smaller = describe(part.run, part.first, part.last, rewritten, kept)
    archive.store.write(f"images/{smaller.path}", rewritten)
    return smaller


def _write_commit(archive: Archive, changes: _Changes) -> None:
    table = archive.table
    done = table.transaction_version(APPLICATION)
    now = int(time.time() * 1000)
    adds = [AddAction(part.path, part.size, {}, now, True, _stats(part)) for part in changes.added]
    removes = [RemoveAction(part.path, True, now, size=part.size) for part in changes.removed]
    table.create_write_transaction(
        [*adds, *removes],
        mode="append",
        schema=Schema.from_arrow(SCHEMA),
        commit_properties=CommitProperties(
            app_transactions=[Transaction(APPLICATION, (done or 0) + 1)], max_commit_retries=0
        ),
    )


def _stats(part: Part) -> str:
    """Without min and max of the key, every lookup would touch every part."""
    bounds = (
        {}
        if part.min_key is None
        else {"minValues": {"key": part.min_key}, "maxValues": {"key": part.max_key}}
    )
    return json.dumps({"numRecords": part.records, **bounds})
