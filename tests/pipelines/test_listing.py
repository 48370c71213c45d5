import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.archive import Archive, create
from manifests.commit import commit
from manifests.part import Origin
from manifests.plan import Plan, shards_of
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import Entry, Location, locate
from pipelines import listing as listing_module
from pipelines.changes import Changes
from pipelines.listing import Selection, check_apart, list_source, plan_run
from pipelines.worker import write_part
from tests.sources import rows

SPEC = CodecSpec("toy", 1)
SOURCE = locate("s3://photos", {"endpoint_url": "http://127.0.0.1:1"})  # nobody is asked: see `Bucket`
DAY = 86_400
ALL = Selection()
Told = dict[str, int | str | None]


class Bucket:
    """A listing that tests write down; its keys come in whatever order they were put there."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def put(self, key: str, size: int = 100, mtime: int = DAY, etag: str | None = None) -> None:
        self.entries[key] = Entry(key, size, mtime, etag)

    def list(self) -> Iterator[Entry]:
        yield from self.entries.values()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket()
    monkeypatch.setattr(listing_module, "connect", lambda location: made)
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return create(locate(f"{tmp_path}/archive"))


def listed(archive: Archive, selection: Selection = ALL, retry: bool = False) -> tuple[Plan | None, Changes]:
    return plan_run(
        archive, SOURCE, SPEC, selection, "none", None, "none", None, False, lambda images: 7, retry
    )


def archived(archive: Archive, plan: Plan | None, failing: str = "") -> None:
    """Commits records of all rows of a plan, those of keys that hold `failing` as failures."""
    assert plan is not None
    image = EncodedImage(b"x", None, 1, 1)
    parts = []
    for shard in shards_of(plan, []):
        planned = plan.rows.slice(shard.first, len(shard)).to_pylist()
        records = [Record(row["key"], row["size"], row["mtime"], SPEC.id, image) for row in planned]
        records = [
            replace(record, image=None, failure="why") if failing and failing in record.key else record
            for record in records
        ]
        parts.append(write_part(archive.store, shard, records, Origin(0.0, "cpu")).part)
    commit(archive, plan, parts)


def keys_of(plan: Plan | None) -> list[str]:
    return [] if plan is None else plan.rows["key"].to_pylist()


def test_keys_are_planned_in_the_order_of_their_bytes_whatever_the_listings(
    bucket: Bucket, archive: Archive
) -> None:
    for key in ("b.png", "é.png", "a/z.png", "a.png", "Z.png", "\U0001f600.png", "￮.png"):
        bucket.put(key)
    plan, changes = listed(archive)
    assert keys_of(plan) == sorted(bucket.entries, key=str.encode)
    assert changes == Changes(new=7, changed=0, retried=0, unchanged=0, deleted=0, other=0, source_bytes=700)
    assert plan is not None
    assert (plan.head.source, plan.head.spec, plan.head.shard_records) == (str(SOURCE), SPEC.id, 7)


def test_chunks_of_a_long_listing_make_one_plan(
    bucket: Bucket, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_CHUNK", 10)
    for number in reversed(range(95)):
        bucket.put(f"{number:03d}.png", size=number)
    plan, _ = listed(archive)
    assert plan is not None
    assert plan.rows["key"].to_pylist() == [f"{number:03d}.png" for number in range(95)]
    assert plan.rows["size"].to_pylist() == list(range(95))


def test_only_images_by_their_suffix_are_planned_and_others_counted(bucket: Bucket, archive: Archive) -> None:
    for key in (
        "a.JPG",
        "b.tiff",
        "c.heic",
        "d.txt",
        "e.json",
        "png",
        ".png",
        "f.png.bak",
        "bad\udcff.png",
        "g.mp4",
    ):
        bucket.put(key)
    plan, changes = listed(archive)
    assert keys_of(plan) == ["a.JPG", "b.tiff", "c.heic"]
    assert (changes.new, changes.other) == (3, 7)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["a/1.png", "a/b/2.jpg", "c/3.png"]),
        (("*.png",), (), ["a/1.png", "c/3.png"]),
        (("a/*",), (), ["a/1.png", "a/b/2.jpg"]),
        (("a/*", "c/*"), ("*.jpg",), ["a/1.png", "c/3.png"]),
        ((), ("a/*", "c/*"), []),
        (("[ac]/?.png",), (), ["a/1.png", "c/3.png"]),
        (("A/*",), (), []),
    ],
)
def test_globs_choose_keys(
    bucket: Bucket, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    for key in ("a/1.png", "a/b/2.jpg", "c/3.png"):
        bucket.put(key)
    assert list_source(SOURCE, Selection(include, exclude)).rows["key"].to_pylist() == expected


def test_what_is_archived_and_unchanged_is_not_planned_again(bucket: Bucket, archive: Archive) -> None:
    for number in range(20):
        bucket.put(f"{number:02d}.png", etag=f"{number:032x}" if number % 2 else None)
    archived(archive, listed(archive)[0])
    plan, changes = listed(archive)
    assert plan is None
    assert (changes.unchanged, changes.source_bytes) == (20, 0)
    assert list(archive.runs()) == list(archive.runs())


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({"size": 100}, {"size": 101}, True),
        ({"mtime": DAY}, {"mtime": DAY + 1}, True),
        ({"etag": "x"}, {"etag": "y"}, True),
        ({"etag": "x", "mtime": DAY}, {"etag": "x", "mtime": DAY + 1}, False),  # put there again, as it was
        ({"etag": "x", "size": 100}, {"etag": "x", "size": 101}, True),
        ({"etag": None, "mtime": DAY}, {"etag": "x", "mtime": DAY}, False),
        ({"etag": "x", "mtime": DAY}, {"etag": None, "mtime": DAY + 1}, True),
    ],
)
def test_a_key_has_changed_where_size_etag_or_else_time_have(
    bucket: Bucket,
    archive: Archive,
    before: dict[str, int | str | None],
    now: dict[str, int | str | None],
    changed: bool,
) -> None:
    bucket.put("same.png", etag="s")
    bucket.put("x.png", **before)  # type: ignore[arg-type]
    first, _ = listed(archive)
    archived(archive, first)
    bucket.put("x.png", **now)  # type: ignore[arg-type]
    plan, changes = listed(archive)
    assert keys_of(plan) == (["x.png"] if changed else [])
    assert (changes.changed, changes.unchanged) == ((1, 1) if changed else (0, 2))
    if plan is not None and first is not None:
        assert plan.rows["replaces"].to_pylist() == [first.run]


def test_new_keys_among_many_parts_and_runs_are_found(bucket: Bucket, archive: Archive) -> None:
    for number in range(0, 60, 3):
        bucket.put(f"{number:02d}.png")
    archived(archive, listed(archive)[0])
    for number in range(0, 60, 2):
        bucket.put(f"{number:02d}.png", size=200 if number == 12 else 100)
    second, changes = listed(archive)
    assert (changes.new, changes.changed, changes.unchanged) == (20, 1, 19)
    archived(archive, second)
    for number in range(60):
        bucket.put(f"{number:02d}.png", size=200 if number in (12, 15, 16) else 100)
    plan, changes = listed(archive)
    assert keys_of(plan) == sorted(f"{n:02d}.png" for n in range(60) if (n % 2 and n % 3) or n in (15, 16))
    assert (changes.new, changes.changed, changes.unchanged) == (20, 2, 38)
    archived(archive, plan)
    assert rows(archive.location)["key"].to_pylist() == [f"{n:02d}.png" for n in range(60)]


def test_a_damaged_part_is_not_taken_for_a_listing(bucket: Bucket, archive: Archive) -> None:
    """Its keys would be encoded again, or taken for others."""
    for number in range(20):
        bucket.put(f"{number}.png")
    archived(archive, listed(archive)[0])
    path = f"images/{min(archive.parts)}"
    content = bytearray(archive.store.read(path))
    content[60] ^= 1  # among the keys
    archive.store.write(path, bytes(content))
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        listed(archive)


def test_deleted_keys_are_counted_where_they_are_meant(bucket: Bucket, archive: Archive) -> None:
    for key in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        bucket.put(key)
    archived(archive, listed(archive)[0])
    del bucket.entries["a/1.png"], bucket.entries["b/2.png"]
    assert listed(archive)[1].deleted == 2
    assert listed(archive, Selection(("a/*",)))[1] == Changes(0, 0, 0, 1, 1, 0, 0)
    bucket.entries.clear()
    assert listed(archive)[1].deleted == 4


def test_failures_are_planned_again_only_when_asked(bucket: Bucket, archive: Archive) -> None:
    for number in range(10):
        bucket.put(f"{number}.png")
    first, _ = listed(archive)
    archived(archive, first, failing="3")
    assert listed(archive)[0] is None
    plan, changes = listed(archive, retry=True)
    assert (keys_of(plan), changes.retried, changes.unchanged) == (["3.png"], 1, 9)
    archived(archive, plan)
    assert listed(archive, retry=True)[0] is None


def test_keys_of_another_source_are_not_touched(bucket: Bucket, archive: Archive) -> None:
    bucket.put("a.png")
    archived(archive, listed(archive)[0])
    other = locate("s3://other", {"endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(ValueError, match="holds keys of s3://photos under the same names as s3://other"):
        plan_run(
            archive, other, SPEC, Selection(), "none", None, "none", None, False, lambda images: 7, False
        )


@pytest.mark.parametrize(
    ("source", "archive", "apart"),
    [
        ("/a/photos", "/a/archive", True),
        ("/a/photos", "/a/photos-archive", True),
        ("/a/photos", "/a/photos/archive", False),
        ("/a/photos/2024", "/a/photos", False),
        ("/a/photos", "/a/photos", False),
        ("s3://b", "s3://b/archive", False),
        ("s3://b/photos", "s3://b/archive", True),
        ("s3://b/photos", "s3://b/photos2", True),
        ("s3://b/photos", "/b/photos/x", True),
    ],
)
def test_source_and_archive_lie_apart(source: str, archive: str, apart: bool) -> None:
    if apart:
        check_apart(locate(source), locate(archive))
    else:
        with pytest.raises(ValueError, match="neither to lie within the other"):
            check_apart(locate(source), locate(archive))


def test_buckets_of_one_name_at_two_servers_are_two_places() -> None:
    here, there = (Location("s3://b", (("endpoint_url", f"http://{host}"),)) for host in "xy")
    check_apart(here, there)
    with pytest.raises(ValueError, match=re.escape("s3://b and archive s3://b")):
        check_apart(here, here)


def test_links_do_not_hide_that_an_archive_lies_below_its_source(tmp_path: Path) -> None:
    (tmp_path / "source" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "source" / "inside")
    with pytest.raises(ValueError, match="neither to lie within the other"):
        check_apart(locate(f"{tmp_path}/source"), locate(f"{tmp_path}/link"))
