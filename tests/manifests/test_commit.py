from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import commit as commit_module
from manifests.archive import Archive, create
from manifests.commit import adoptable, commit, settled
from manifests.part import Origin, Part, describe, table_of, to_parquet
from manifests.plan import PLAN_SCHEMA, Plan, PlanHead
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import Location, locate
from tests.servers import S3Server
from tests.sources import rows

SPEC = CodecSpec("toy", 1)
KEYS = [f"{number:04d}.png" for number in range(40)]


@pytest.fixture(params=["local", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(f"{tmp_path}/archive")
    server: S3Server = request.getfixturevalue("s3")
    return server.location("archive")


@pytest.fixture
def here(tmp_path: Path) -> Location:
    return locate(f"{tmp_path}/archive")


def begin(
    archive: Archive, keys: Iterable[str], source: str = "/photos", replaces: dict[str, str] | None = None
) -> Plan:
    """A plan of the keys, made when the archive was as it is; different sources give different runs."""
    ordered = sorted(keys)
    columns = {
        "key": ordered,
        "size": [100] * len(ordered),
        "mtime": [0] * len(ordered),
        "etag32": [None] * len(ordered),
        "replaces": [(replaces or {}).get(key) for key in ordered],
        "caption": [None] * len(ordered),
    }
    archive.refresh()
    head = PlanHead(source, SPEC.id, "2026-01-31T12:00:00Z", archive.version, "none", False, 10)
    return archive.write_plan(head, pa.Table.from_pydict(columns, schema=PLAN_SCHEMA))


def put(
    archive: Archive,
    plan: Plan,
    first: int,
    last: int,
    mark: bytes = b"",
    lacks: frozenset[str] = frozenset(),
) -> Part:
    """Writes a part of rows first..last, and does not commit it."""
    keys = [key for key in plan.rows["key"].slice(first, last - first + 1).to_pylist() if key not in lacks]
    image = EncodedImage(mark or plan.head.source.encode(), None, 1, 1)
    table = table_of([Record(key, 100, 0, SPEC.id, image) for key in keys], plan.run)
    content = to_parquet(table, Origin(1.0, "cpu"))
    part = describe(plan.run, first, last, content, table)
    archive.store.write(f"images/{part.path}", content)
    return part


def runs_of(location: Location) -> dict[str, str]:
    """Key -> run, of all rows; each key is there once."""
    found = rows(location)
    assert len(found["key"].unique()) == len(found)
    return dict(zip(found["key"].to_pylist(), found["run"].to_pylist(), strict=True))


def test_parts_are_not_there_until_they_are_committed(location: Location) -> None:
    archive = create(location)
    plan = begin(archive, KEYS)
    parts = [put(archive, plan, 0, 9), put(archive, plan, 10, 19)]
    assert runs_of(location) == {}
    assert commit(archive, plan, parts) == parts
    assert archive.ranges(plan.run) == [(0, 9), (10, 19)]
    assert runs_of(location) == dict.fromkeys(KEYS[:20], plan.run)
    found = Archive(location).parts[parts[0].path]
    assert (found.records, found.min_key, found.max_key, found.size) == (10, KEYS[0], KEYS[9], parts[0].size)


def test_committing_again_adds_nothing(location: Location) -> None:
    archive = create(location)
    plan = begin(archive, KEYS)
    part = put(archive, plan, 0, 9)
    assert commit(archive, plan, [part]) == [part]
    version = archive.version
    assert commit(archive, plan, [part]) == []
    assert commit(Archive(location), plan, [part, part]) == []
    assert Archive(location).version == version


def test_of_parts_that_overlap_one_is_added(here: Location) -> None:
    archive = create(here)
    plan = begin(archive, KEYS)
    first, twin = put(archive, plan, 0, 9, b"x"), put(archive, plan, 0, 9, b"y")
    half, next_ = put(archive, plan, 5, 14), put(archive, plan, 15, 19)
    added = commit(archive, plan, [twin, half, first, next_])
    assert added == [min(first, twin, key=lambda part: part.path), next_]
    assert commit(archive, plan, [half]) == []
    assert archive.ranges(plan.run) == [(0, 9), (15, 19)]


@pytest.mark.parametrize("harm", ["deleted", "truncated"])
def test_a_part_that_the_store_lacks_is_refused(location: Location, harm: str) -> None:
    archive = create(location)
    plan = begin(archive, KEYS)
    part = put(archive, plan, 0, 9)
    if harm == "deleted":
        archive.store.delete(f"images/{part.path}")
    else:
        archive.store.write(f"images/{part.path}", b"short")
    with pytest.raises(FileNotFoundError, match=f"expected {part.size} bytes"):
        commit(archive, plan, [part])
    assert Archive(location).parts == {}


def test_keys_that_another_run_has_added_since_the_plan_are_dropped(location: Location) -> None:
    archive = create(location)
    mine, theirs = begin(archive, KEYS[:20], "/a"), begin(archive, KEYS[5:30], "/b")
    commit(Archive(location), theirs, [put(archive, theirs, 0, 24)])
    (added,) = commit(archive, mine, [put(archive, mine, 0, 19)])
    assert (added.first, added.last, added.records) == (0, 19, 5)
    assert runs_of(location) == dict.fromkeys(KEYS[:5], mine.run) | dict.fromkeys(KEYS[5:30], theirs.run)


def test_a_part_all_of_whose_keys_are_dropped_still_marks_its_range_as_done(here: Location) -> None:
    archive = create(here)
    mine, theirs = begin(archive, KEYS[:10], "/a"), begin(archive, KEYS[:10], "/b")
    commit(archive, theirs, [put(archive, theirs, 0, 9)])
    (added,) = commit(archive, mine, [put(archive, mine, 0, 9)])
    assert added.records == 0
    assert archive.ranges(mine.run) == [(0, 9)]
    assert runs_of(here) == dict.fromkeys(KEYS[:10], theirs.run)


def test_a_replaced_key_leaves_its_old_part_in_the_same_commit(location: Location) -> None:
    archive = create(location)
    old = begin(archive, KEYS[:20])
    commit(archive, old, [put(archive, old, 0, 9), put(archive, old, 10, 19)])
    version = archive.version
    new = begin(archive, [KEYS[3], KEYS[12], "new.png"], "/new", {KEYS[3]: old.run, KEYS[12]: old.run})
    commit(archive, new, [put(archive, new, 0, 2)])
    assert archive.version == version + 1
    expected = dict.fromkeys(KEYS[:20], old.run) | dict.fromkeys([KEYS[3], KEYS[12], "new.png"], new.run)
    assert runs_of(location) == expected
    assert archive.ranges(old.run) == [(0, 9), (10, 19)]
    assert [part.records for part in archive.parts.values() if part.run == old.run] == [9, 9]


def test_of_two_runs_that_replace_a_key_one_does(here: Location) -> None:
    archive = create(here)
    old = begin(archive, KEYS[:10])
    commit(archive, old, [put(archive, old, 0, 9)])
    first, second = (
        begin(archive, KEYS[2:5], name, dict.fromkeys(KEYS[2:5], old.run)) for name in ("/b", "/c")
    )
    parts = [put(archive, first, 0, 2), put(archive, second, 0, 2)]
    commit(archive, first, parts[:1])
    (added,) = commit(archive, second, parts[1:])
    assert added.records == 0
    assert runs_of(here) == dict.fromkeys(KEYS[:10], old.run) | dict.fromkeys(KEYS[2:5], first.run)
    assert settled(archive, begin(archive, KEYS[:3], "/d", {})) == frozenset()


def test_settled_are_the_keys_that_need_no_encoding_any_more(here: Location) -> None:
    archive = create(here)
    old = begin(archive, KEYS[:4])
    commit(archive, old, [put(archive, old, 0, 3)])
    mine = begin(archive, KEYS[:20], "/a", dict.fromkeys(KEYS[:4], old.run))
    assert settled(archive, mine) == frozenset()
    theirs = begin(archive, [KEYS[1], KEYS[7], KEYS[15]], "/b", {KEYS[1]: old.run})
    commit(archive, theirs, [put(archive, theirs, 0, 2)])
    assert settled(archive, mine) == {KEYS[1], KEYS[7], KEYS[15]}
    commit(archive, mine, [put(archive, mine, 10, 19)])
    assert settled(archive, mine) == {KEYS[1], KEYS[7]}


def test_finished_parts_of_a_crashed_run_are_adopted(location: Location) -> None:
    archive = create(location)
    plan = begin(archive, KEYS)
    done = put(archive, plan, 0, 9)
    commit(archive, plan, [done])
    twins = [put(archive, plan, 10, 19, mark) for mark in (b"x", b"y")]
    lonely = put(archive, plan, 20, 29)
    put(archive, plan, 25, 34)  # overlaps it
    archive.store.write(f"images/{plan.run}/readme.txt", b"no part")
    found = adoptable(archive, plan)
    assert found == [min(twins, key=lambda part: part.path), lonely]
    assert commit(archive, plan, found) == found
    assert adoptable(archive, plan) == []


def test_a_torn_damaged_or_lacking_part_is_not_adopted(here: Location) -> None:
    archive = create(here)
    plan = begin(archive, KEYS)
    torn, flipped = put(archive, plan, 0, 9), put(archive, plan, 10, 19)
    put(archive, plan, 20, 29, lacks=frozenset([KEYS[22]]))
    whole = put(archive, plan, 30, 39)
    content = archive.store.read(f"images/{torn.path}")
    archive.store.write(f"images/{torn.path}", content[:-30])
    content = archive.store.read(f"images/{flipped.path}")
    archive.store.write(f"images/{flipped.path}", content[:60] + bytes([content[60] ^ 1]) + content[61:])
    assert adoptable(archive, plan) == [whole]


def test_a_part_that_lacks_only_what_the_table_has_is_adopted(here: Location) -> None:
    archive = create(here)
    mine, theirs = begin(archive, KEYS[:10], "/a"), begin(archive, KEYS[4:5], "/b")
    commit(archive, theirs, [put(archive, theirs, 0, 0)])
    part = put(archive, mine, 0, 9, lacks=frozenset([KEYS[4]]))
    assert adoptable(archive, mine) == [part]
    commit(archive, mine, [part])
    assert sorted(runs_of(here)) == KEYS[:10]


def test_a_driver_whose_commit_met_anothers_looks_again(
    here: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = create(here)
    mine, theirs = begin(archive, KEYS[:20], "/a"), begin(archive, KEYS[:20], "/b")
    part, other = put(archive, mine, 0, 19), put(archive, theirs, 0, 9)
    write = commit_module._write_commit
    raced: list[bool] = []

    def write_after_another(late: Archive, changes: commit_module._Changes) -> None:
        if not raced:
            raced.append(True)
            commit(Archive(here), theirs, [other])
        write(late, changes)

    monkeypatch.setattr(commit_module, "_write_commit", write_after_another)
    (added,) = commit(archive, mine, [part])
    assert added.records == 10
    assert runs_of(here) == dict.fromkeys(KEYS[:10], theirs.run) | dict.fromkeys(KEYS[10:20], mine.run)


@pytest.fixture
def racing(location: Location) -> tuple[Location, Plan, Plan]:
    archive = create(location)
    return location, begin(archive, KEYS, "/a"), begin(archive, KEYS[::2], "/b")


def test_drivers_that_race_add_each_key_once(racing: tuple[Location, Plan, Plan]) -> None:
    location, *plans = racing
    writer = Archive(location)
    parts = {
        plan.run: [
            put(writer, plan, first, min(first + 3, len(plan) - 1)) for first in range(0, len(plan), 4)
        ]
        for plan in plans
    }

    def drive(plan: Plan) -> int:
        archive = Archive(location)
        return sum(len(commit(archive, plan, [part])) for part in parts[plan.run])

    with ThreadPoolExecutor(3) as drivers:
        added = list(drivers.map(drive, [plans[0], plans[1], plans[0]]))
    assert added[0] + added[2] == 10
    assert added[1] == 5
    assert sorted(runs_of(location)) == KEYS
    assert all(len(Archive(location).ranges(plan.run)) == len(parts[plan.run]) for plan in plans)


def test_a_key_is_found_in_a_part_that_was_rewritten(here: Location) -> None:
    archive = create(here)
    old = begin(archive, KEYS[:10])
    commit(archive, old, [put(archive, old, 0, 9)])
    first = begin(archive, KEYS[:1], "/a", {KEYS[0]: old.run})
    commit(archive, first, [put(archive, first, 0, 0)])
    second = begin(archive, KEYS[9:10], "/b", {KEYS[9]: old.run})
    commit(archive, second, [put(archive, second, 0, 0)])
    (part,) = [part for part in archive.parts.values() if part.run == old.run]
    assert (part.min_key, part.max_key, part.records) == (KEYS[1], KEYS[8], 8)
    assert replace(part, hash="") == replace(Archive(here).parts[part.path], hash="")
