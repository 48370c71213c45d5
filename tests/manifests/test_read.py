"""Bit flips anywhere in a part: the records that are intact come back, the others are named, none is wrong."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import manifests.part
import manifests.read
import manifests.recent
from manifests.archive import Archive
from manifests.local import LocalStore
from manifests.lookup import Lookup
from manifests.mending import mended
from manifests.part import BLOCK_BYTES, Damaged, Part, describe, metadata_of, short_hash, table_of
from manifests.read import FOOTER_BYTES, WHOLE_BYTES, read_columns, read_origin, read_records
from manifests.recent import Recent
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import Store, locate
from tests.archives import build
from tests.measure.generator import records

SPEC = CodecSpec("synthetic", 1)
COLUMNS = ("key", "caption", "width", "height", "source_bytes", "mtime", "spec", "run", "bitstream_bytes", "check",
           "failure", "notes", "digest", "bitstream")  # fmt: skip


class Counting:
    """A `Store` that notes what is read of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: list[tuple[str, int]] = []  # path, bytes

    def read(self, path: str) -> bytes:
        content = self._store.read(path)
        self.reads.append((path, len(content)))
        return content

    def read_range(self, path: str, start: int, end: int) -> bytes:
        content = self._store.read_range(path, start, end)
        self.reads.append((path, len(content)))
        return content


@pytest.fixture(scope="module")
def made() -> list[Record]:
    return list(records(5000, seed=4))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, made: list[Record]) -> Archive:
    """One part of two row groups, some failures in it."""
    failures = [
        Record(f"{record.key}.bad", 9, record.mtime, record.spec, None, failure="not an image")
        for record in made[100:1300:400]
    ]
    location = locate(str(tmp_path_factory.mktemp("small") / "archive"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests.part, "ROW_GROUP_RECORDS", 1000)
        return build(location, [*made[:1600], *failures], 10_000, spec=SPEC)


def only_part(archive: Archive) -> Part:
    (part,) = archive.parts.values()
    return part


def path_of(part: Part) -> str:
    return f"images/{part.path}"


def by_key(found: list[Record | Damaged]) -> dict[str, Record]:
    return {record.key: record for record in found if isinstance(record, Record)}


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def check(truth: dict[str, Record], found: list[Record | Damaged]) -> list[str]:
    """Each key once, as its own record or as damaged; the keys of the damaged ones."""
    lost = [record.key for record in found if isinstance(record, Damaged) and record.what != "caption"]
    bare = {record.key for record in found if isinstance(record, Damaged) and record.what == "caption"}
    given = [record for record in found if isinstance(record, Record)]
    assert sorted([record.key for record in given] + lost) == sorted(truth)
    for record in given:
        true = truth[record.key]
        if record.key in bare:
            assert true.image is not None
            true = replace(true, image=replace(true.image, caption=None))
        assert record in (true, replace(true, notes=None))
    return lost


def test_records_come_back_as_they_were(small: Archive, made: list[Record]) -> None:
    found = list(read_records(small.store, only_part(small)))
    assert len(found) == 1603
    assert check(by_key(found), found) == []
    assert [
        record for record in found if isinstance(record, Record) and not record.key.endswith(".bad")
    ] == made[:1600]


def test_a_flipped_bit_anywhere_costs_no_more_than_it_must(small: Archive) -> None:
    """Over every column's chunk and the footer: what is restored is right, and what is not is named."""
    part = only_part(small)
    path, content = path_of(part), small.store.read(path_of(part))
    truth = by_key(list(read_records(small.store, part)))
    metadata = pq.read_metadata(small.location.url + "/" + path)
    assert metadata.num_row_groups == 2
    first_group = metadata.row_group(0).num_rows
    rng = random.Random(7)
    places = [
        (name, place)
        for name, extents in extents_of(metadata).items()
        for e in extents
        for place in rng.choices(range(*e), k=3)
    ]
    places += [
        ("footer", place)
        for place in rng.choices(range(len(content) - metadata.serialized_size - 8, len(content)), k=20)
    ]
    places += [("any", place) for place in rng.choices(range(len(content)), k=30)]
    lost_by: dict[str, list[int]] = {}
    for name, place in places:
        small.store.write(path, flipped(content, place, rng.randrange(8)))
        lost = check(truth, list(read_records(small.store, part)))
        assert len(lost) <= first_group, (name, place)
        lost_by.setdefault(name, []).append(len(lost))
    small.store.write(path, content)
    assert max(lost_by["footer"]) == 0  # one flipped bit is mended
    for name in (
        "key",
        "caption",
        "source_bytes",
        "mtime",
        "spec",
        "run",
        "bitstream_bytes",
        "notes",
        "digest",
    ):
        assert max(lost_by[name]) == 0, name  # the plan has them, or the picture does not need them
    assert sorted(lost_by["bitstream"])[len(lost_by["bitstream"]) // 2] <= 1


def extents_of(metadata: pq.FileMetaData) -> dict[str, list[tuple[int, int]]]:
    """Column -> first and end byte of its chunk in each row group."""
    found: dict[str, list[tuple[int, int]]] = {}
    for group in range(metadata.num_row_groups):
        for index, name in enumerate(COLUMNS):
            column = metadata.row_group(group).column(index)
            start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            found.setdefault(name, []).append((start, start + column.total_compressed_size))
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, made: list[Record]) -> Archive:
    """One part of two row groups that is not read whole for a few keys."""
    archive = build(locate(str(tmp_path_factory.mktemp("large") / "archive")), made, 10_000, spec=SPEC)
    assert only_part(archive).size > WHOLE_BYTES
    metadata = pq.read_metadata(f"{archive.location.url}/{path_of(only_part(archive))}")
    assert metadata.num_row_groups == 2
    return archive


def test_one_key_costs_three_reads_of_less_than_300_kb(large: Archive, made: list[Record]) -> None:
    for record in made[::500]:
        store = Counting(large.store)
        assert list(read_records(store, only_part(large), frozenset([record.key]))) == [record]  # type: ignore[arg-type]
        assert len(store.reads) <= 3
        assert sum(size for _, size in store.reads) <= 300_000


def test_a_bitstream_of_any_size_is_cut_out_of_its_blocks(tmp_path: Path, made: list[Record]) -> None:
    """Empty ones, such as cross borders of blocks, and failures among them."""
    rng = random.Random(5)
    sizes = [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 1, 0, BLOCK_BYTES - 2, 200_000]
    images = [EncodedImage(rng.randbytes(size), None, 3, 4) for size in sizes]
    written = [replace(made[place], image=image, failure=None) for place, image in enumerate(images)]
    failed = Record("~", 9, 9, made[0].spec, None, failure="not an image")
    filler = [
        replace(record, image=EncodedImage(b"\1" * 9, None, 3, 4), failure=None) for record in made[20:60]
    ]
    archive = build(locate(str(tmp_path / "archive")), [*written, failed, *filler], 10_000, spec=SPEC)
    for record in (*written, failed):
        store = Counting(archive.store)
        assert list(read_records(store, only_part(archive), frozenset([record.key]))) == [record]  # type: ignore[arg-type]
        assert only_part(archive).size not in [size for _, size in store.reads]


@pytest.mark.parametrize("names", [["key"], ["key", "failure", "mtime"]])
def test_columns_are_read_without_their_bitstreams(
    large: Archive, made: list[Record], names: list[str]
) -> None:
    store, part = Counting(large.store), only_part(large)
    columns = read_columns(store, part, names, FOOTER_BYTES)  # type: ignore[arg-type]
    assert columns is not None
    assert columns.column_names == names
    assert columns["key"].to_pylist() == [record.key for record in made]
    assert len(store.reads) <= 3
    assert sum(size for _, size in store.reads) <= part.size / 4
    path, content = path_of(part), large.store.read(path_of(part))
    large.store.write(path, flipped(content, 5000, 3))  # among the keys
    assert read_columns(large.store, part, names, FOOTER_BYTES) is None
    large.store.write(path, content)


def test_a_part_of_small_row_groups_and_no_blocks_is_read_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first versions of this program wrote them."""
    content = (Path(__file__).parent / "golden" / "small_row_groups.parquet").read_bytes()
    written = list(records(100, seed=8, mean_bitstream_bytes=20))
    run, store = "20260131T120000-0123456789", LocalStore(str(tmp_path))
    part = describe(run, 0, 99, content, table_of(written, run))
    store.write(f"images/{part.path}", content)
    assert list(read_records(store, part)) == written
    monkeypatch.setattr(manifests.read, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(manifests.read, "FOOTER_BYTES", 5000)
    for record in (written[0], written[57], written[99]):
        counting = Counting(store)
        assert list(read_records(counting, part, frozenset([record.key]))) == [record]  # type: ignore[arg-type]
        assert sum(size for _, size in counting.reads) < len(content)
    columns = read_columns(store, part, ["key"], FOOTER_BYTES)
    assert columns is not None
    assert columns["key"].to_pylist() == [record.key for record in written]


def test_many_keys_read_each_row_group_once(large: Archive, made: list[Record]) -> None:
    store = Counting(large.store)
    keys = frozenset(record.key for record in made[10:4000:7])
    found = list(read_records(store, only_part(large), keys))  # type: ignore[arg-type]
    assert found == made[10:4000:7]
    assert sum(size for _, size in store.reads) <= only_part(large).size


def test_what_was_read_lately_is_not_asked_for_again(large: Archive, made: list[Record]) -> None:
    counting, part = Counting(large.store), only_part(large)
    store = Recent(counting)  # type: ignore[arg-type]
    assert read_columns(store, part, ["key"], FOOTER_BYTES) is not None
    before = len(counting.reads)
    assert list(read_records(store, part, frozenset([made[7].key]))) == [made[7]]
    assert len(counting.reads) == before + 1  # the block of its bitstream


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests.recent, "MOST_BYTES", 100)
    behind = LocalStore(str(tmp_path))
    behind.write("images/a.parquet", bytes(range(200)))
    store = Recent(behind)
    for start in (0, 60, 120):
        assert store.read_range("images/a.parquet", start, start + 60) == bytes(range(start, start + 60))
    assert [store.holds("images/a.parquet", start + 1, start + 9) for start in (0, 60, 120)] == [
        False,
        False,
        True,
    ]
    assert store.read_range("images/a.parquet", 130, 140) == bytes(range(130, 140))
    assert not store.holds("images/a.parquet", 110, 130)
    assert store.read_range("images/a.parquet", 190, 210) == bytes(range(190, 200))  # as far as it goes


def test_keys_that_a_part_does_not_hold_are_left_out(large: Archive, small: Archive) -> None:
    for archive in (large, small):
        low = only_part(archive).min_key
        assert list(read_records(archive.store, only_part(archive), frozenset([f"{low}.no", "zzz"]))) == []


def test_damage_never_gives_a_wrong_record_for_a_key(large: Archive, made: list[Record]) -> None:
    """Reads of few bytes, and what follows where these are damaged."""
    part = only_part(large)
    path, content = path_of(part), large.store.read(path_of(part))
    wanted = {record.key: record for record in (made[3], made[2500], made[4990])}
    rng = random.Random(9)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in rng.choices(range(len(content)), k=20) + rng.choices(range(footer, len(content)), k=10):
        large.store.write(path, flipped(content, place, rng.randrange(8)))
        check(wanted, list(read_records(large.store, part, frozenset(wanted))))
    large.store.write(path, content)


def test_no_damaged_footer_reaches_pyarrow(small: Archive) -> None:
    """It would abort the process over some of them: each single bit is found by the footer's own CRC-32."""
    content = small.store.read(path_of(only_part(small)))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    metadata_of(content)
    for place in range(footer, len(content)):
        for bit in range(8):
            with pytest.raises(ValueError, match="footer"):
                metadata_of(flipped(content, place, bit))


def test_a_missing_part_names_its_records_from_the_plan(tmp_path: Path, made: list[Record]) -> None:
    archive = build(locate(str(tmp_path / "archive")), made[:20], 10, spec=SPEC)
    part = sorted(archive.parts.values(), key=lambda part: part.first)[1]
    archive.store.delete(path_of(part))
    assert list(read_records(archive.store, part)) == [Damaged(r.key, "part missing") for r in made[10:20]]
    archive.store.write(f"runs/{part.run}/plan.parquet", b"damaged too")
    (found,) = read_records(archive.store, part)
    assert isinstance(found, Damaged)
    assert found.key == path_of(part)


@pytest.mark.parametrize(
    "cut", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: c[:-1], lambda c: b"\0" * len(c)]
)
def test_a_torn_part_names_all_its_records(
    tmp_path: Path, made: list[Record], cut: Callable[[bytes], bytes]
) -> None:
    archive = build(locate(str(tmp_path / "archive")), made[:50], spec=SPEC)
    part = only_part(archive)
    archive.store.write(path_of(part), cut(archive.store.read(path_of(part))))
    assert {found.key for found in read_records(archive.store, part)} == {record.key for record in made[:50]}
    assert all(isinstance(found, Damaged) for found in read_records(archive.store, part))
    assert read_origin(archive.store, part) is None


def test_a_log_that_says_a_part_is_huge_allocates_nothing(small: Archive, made: list[Record]) -> None:
    part = replace(only_part(small), size=2**60)
    assert list(read_records(small.store, part, frozenset([made[0].key]))) == [made[0]]


def test_the_origin_of_a_part_is_read_from_its_last_bytes(large: Archive) -> None:
    store = Counting(large.store)
    origin = read_origin(store, only_part(large))  # type: ignore[arg-type]
    assert origin is not None
    assert (origin.encode_seconds, origin.device) == (0.5, "cpu")
    assert store.reads == [(path_of(only_part(large)), FOOTER_BYTES)]


@pytest.mark.parametrize("error", [ConnectionError("away"), TimeoutError("away"), PermissionError("away")])
def test_a_store_that_does_not_answer_is_no_damage(
    large: Archive, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refused(path: str, start: int, end: int) -> bytes:
        raise error

    store, part = Counting(large.store), only_part(large)
    monkeypatch.setattr(store, "read_range", refused)
    reads: list[Callable[[], object]] = [
        lambda: read_origin(store, part),  # type: ignore[arg-type]
        lambda: read_columns(store, part, ["key"], FOOTER_BYTES),  # type: ignore[arg-type]
        lambda: list(read_records(store, part, frozenset([str(part.min_key)]))),  # type: ignore[arg-type]
    ]
    for read in reads:
        with pytest.raises(type(error), match="away"):
            read()


def test_one_bit_is_mended_and_two_are_not() -> None:
    content = random.Random(1).randbytes(300)
    hash_ = short_hash(content)
    assert mended(flipped(content, 207, 3), hash_, 200, 220) == content
    assert mended(flipped(content, 207, 3), hash_, 0, 207) is None
    assert mended(flipped(flipped(content, 207, 3), 210, 0), hash_, 200, 220) is None


def test_lookup_asks_the_part_that_admits_fewest_other_keys_first() -> None:
    def part(run: str, first: int, low: str, high: str) -> Part:
        return Part(run, first, first + 9, "0" * 16, 100, 10, low, high)

    wide = part("late", 0, "a", "z")
    narrow = [part("early", 0, "a", "f"), part("early", 10, "g", "m"), part("early", 20, "n", "z")]
    lookup = Lookup([wide, *narrow])
    assert lookup.candidates("h") == [narrow[1], wide]
    assert lookup.candidates("h", run="late") == [wide]
    assert lookup.candidates("mm") == [wide]
    assert lookup.candidates("zz") == []
    unknown = replace(narrow[0], run="third", min_key=None, max_key=None)
    assert Lookup([wide, unknown]).candidates("zz") == [unknown]
    assert Lookup([replace(unknown, records=0)]).candidates("zz") == []
