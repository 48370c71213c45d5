"""Conditions over real rows, over damaged parts, and over keys that look like SQL."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.archive import Archive
from manifests.part import Damaged
from manifests.records import EncodedImage, Record
from manifests.storage import locate
from pipelines.select import FAILURES, ROWS, failures, keys_named, open_archive, select
from tests.archives import SPEC, build

KEYS = [f"{place:03d}.jpg" for place in range(600)]


def row(key: str, place: int) -> Record:
    image = EncodedImage(bytes([place % 256]) * (10 + place), f"a dog and {place} cats", 100 + place, 200)
    return Record(key, 1000 + place, 5000 + place, SPEC.id, image)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    failed = Record("bad.jpg", 7, 8, SPEC.id, None, failure="not an image: 7 bytes", notes="of 7 bytes")
    return [*(row(key, place) for place, key in enumerate(KEYS)), failed]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Archive:
    return build(locate(str(tmp_path_factory.mktemp("select") / "archive")), records, shard_records=200)


def keys_of(rows: pa.Table) -> list[str]:
    found: list[str] = rows["key"].to_pylist()
    return found


def test_all_images_come_in_order_with_all_columns(archive: Archive) -> None:
    rows = select(archive)
    assert rows.schema == ROWS
    assert keys_of(rows) == KEYS
    assert rows.slice(3, 1).to_pylist() == [
        {
            "key": "003.jpg",
            "caption": "a dog and 3 cats",
            "width": 200,
            "height": 103,
            "source_bytes": 1003,
            "mtime": 5003,
            "bitstream_bytes": 13,
            "bpp": pytest.approx(13 * 8 / (200 * 103)),
            "codec": "avif",
            "spec": SPEC.id,
            "run": next(iter(archive.runs())),
            "notes": None,
        }
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("caption LIKE '% 7 cats'", ["007.jpg"]),
        ("height BETWEEN 110 AND 111", ["010.jpg", "011.jpg"]),
        ("bpp < 0.0041 AND bitstream_bytes < 12", ["000.jpg"]),
        ("codec = 'gan'", []),
        ("key = 'bad.jpg'", []),
        ("key < '002' -- a comment", ["000.jpg", "001.jpg"]),
        ("source_bytes = 1001 OR mtime = 5000", ["000.jpg", "001.jpg"]),
        ("run > '2026' AND width = 200 AND key = '005.jpg'", ["005.jpg"]),
        ("height = (SELECT max(height) FROM images)", ["599.jpg"]),
    ],
)
def test_conditions_see_the_columns(archive: Archive, where: str, expected: list[str]) -> None:
    assert keys_of(select(archive, where)) == expected


def test_limits_and_keys(archive: Archive) -> None:
    assert keys_of(select(archive, "height > 150", limit=2)) == ["051.jpg", "052.jpg"]
    assert keys_of(select(archive, keys=["005.jpg", "001.jpg", "no"])) == ["001.jpg", "005.jpg"]
    assert keys_of(select(archive, keys=[])) == []
    assert keys_of(select(archive, "height > 120", keys=KEYS[:505], limit=3)) == [
        "021.jpg",
        "022.jpg",
        "023.jpg",
    ]
    assert len(select(archive, limit=0)) == 0
    with pytest.raises(ValueError, match="limit -1"):
        select(archive, limit=-1)


def test_failures_are_apart(archive: Archive) -> None:
    rows = failures(archive)
    assert rows.schema == FAILURES
    (found,) = rows.to_pylist()
    assert (found["key"], found["failure"], found["codec"]) == ("bad.jpg", "not an image: 7 bytes", "avif")
    assert len(failures(archive, "failure LIKE 'missing%'")) == 0


@pytest.mark.parametrize(
    "where", ["widht > 3", "width >", "1 = 1); DROP TABLE records", "CAST(caption AS INT) > 3", "key = 'a"]
)
def test_what_is_no_condition_is_named(archive: Archive, where: str) -> None:
    with pytest.raises(ValueError, match="condition") as caught:
        select(archive, where)
    assert repr(where) in str(caught.value)


def test_keys_with_quotes_and_comments_are_only_keys(tmp_path: Path) -> None:
    odd = ["it's.jpg", "'; --.jpg", 'a"b.jpg', "\\.jpg", "日本.jpg"]
    archive = build(locate(str(tmp_path / "archive")), [row(key, 1) for key in odd])
    for key in odd:
        assert keys_of(select(archive, keys=[key])) == [key]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("key = 'a'", ["a"]),
        (" KEY='it''s' ", ["it's"]),
        ("key in ('a', 'b,''(c)')", ["a", "b,'(c)"]),
        ("key = 'a' OR key = 'b'", None),
        ("key = 'a' AND width > 3", None),
        ("key IN ('a', lower('B'))", None),
        ("key = 'a", None),
        ("caption = 'a'", None),
    ],
)
def test_conditions_that_only_name_keys_are_known(where: str, expected: list[str] | None) -> None:
    assert keys_named(where) == expected


def test_a_lost_part_is_told_and_the_others_are_queried(tmp_path: Path, records: list[Record]) -> None:
    archive = build(locate(str(tmp_path / "archive")), records, shard_records=200)
    lost = sorted(archive.parts.values(), key=lambda part: part.first)[1]
    archive.store.delete(f"images/{lost.path}")
    told: list[Damaged] = []
    assert keys_of(select(archive, "height >= 390", tell=told.append)) == KEYS[400:]
    assert told == [Damaged(key, "part missing") for key in KEYS[200:400]]
    with pytest.raises(ValueError, match=r"200\.jpg: part missing"):
        select(archive, "height >= 390")
    with pytest.raises(ValueError, match="no_such_column"):
        select(archive, "no_such_column = 1", tell=told.append)


def test_a_damaged_column_is_told_and_its_other_columns_are_queried(
    tmp_path: Path, records: list[Record]
) -> None:
    archive = build(locate(str(tmp_path / "archive")), records[:200])
    (part,) = archive.parts.values()
    path = f"images/{part.path}"
    content = bytearray(archive.store.read(path))
    captions = pq.read_metadata(tmp_path / "archive" / path).row_group(0).column(1)
    middle = captions.data_page_offset + captions.total_compressed_size // 2
    content[middle : middle + 20] = b"\xff" * 20
    archive.store.write(path, bytes(content))
    told: list[Damaged] = []
    assert keys_of(select(archive, "height < 103", tell=told.append)) == KEYS[:3]
    assert set(told) == {Damaged(key, "caption") for key in KEYS[:200]}


def test_rows_of_a_damaged_spec_have_no_codec(tmp_path: Path, records: list[Record]) -> None:
    archive = build(locate(str(tmp_path / "archive")), records[:2])
    archive.store.write(f"specs/{SPEC.id}.json", b"{}")
    assert select(archive)["codec"].to_pylist() == [None, None]


def test_what_is_no_archive_is_refused_and_a_damaged_log_is_named(
    tmp_path: Path, records: list[Record]
) -> None:
    with pytest.raises(ValueError, match="no archive at"):
        open_archive(locate(str(tmp_path)))
    archive = build(locate(str(tmp_path / "archive")), records[:2])
    (first, *_) = sorted(entry.path for entry in archive.store.list("images/_delta_log"))
    archive.store.write(first, b"{" + archive.store.read(first))
    with pytest.raises(ValueError, match="archiver verify"):
        open_archive(archive.location)


def test_rows_of_two_runs_are_each_seen_once(tmp_path: Path, records: list[Record]) -> None:
    location = locate(str(tmp_path / "archive"))
    build(location, records[:3])
    archive = build(location, [replace(record, source_bytes=9) for record in records[3:5]])
    rows = select(archive)
    assert keys_of(rows) == KEYS[:5]
    assert len(set(rows["run"].to_pylist())) == 2


def test_subqueries_see_all_rows_whatever_keys_are_asked_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where parts are copied first, as from S3, of which only some can hold the keys."""
    where, asked = "width > (SELECT avg(width) FROM images)", [KEYS[0], KEYS[599]]
    here = keys_of(select(archive, where, keys=asked))
    monkeypatch.setattr(archive, "location", replace(archive.location, url="s3://bucket/archive"))
    assert keys_of(select(archive, where, keys=asked)) == here
    assert (
        keys_of(select(archive, "source_bytes > (SELECT avg(source_bytes) FROM images)", keys=asked))
        == asked[1:]
    )
    assert keys_of(select(archive, keys=asked)) == asked
