"""Damage anywhere in an archive is reported by name, and a whole archive gives no findings."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.codecs import load_codec
from manifests.archive import Archive
from manifests.commit import commit
from manifests.local import LocalStore
from manifests.part import Origin, describe, table_of, to_parquet
from manifests.plan import Shard
from manifests.records import CodecSpec, Record
from manifests.storage import Location, locate
from pipelines.verify import Checked, Finding, verify
from tests.archives import SPEC, begin, build, encoded, small_pictures, summarise, write

KEYS = [f"{place:02d}.jpg" for place in range(12)]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return encoded(small_pictures(len(KEYS)), KEYS)


@pytest.fixture
def archive(tmp_path: Path, records: list[Record]) -> Archive:
    return build(locate(str(tmp_path / "archive")), records, shard_records=4)


def findings(location: Location, fraction: float = 0.0) -> list[Finding]:
    found = list(verify(location, fraction, load_codec, Path("/nonexistent")))
    return [finding for finding in found if isinstance(finding, Finding)]


def harm(location: Location) -> dict[str, str]:
    """Name -> kind, of what is not harmless."""
    return {finding.name: finding.kind for finding in findings(location) if not finding.harmless}


def flip(archive: Archive, path: str, place: int, bit: int = 0) -> None:
    content = bytearray(archive.store.read(path))
    content[place] ^= 1 << bit
    archive.store.write(path, bytes(content))


def part_paths(archive: Archive) -> list[str]:
    return sorted(f"images/{path}" for path in archive.parts)


def test_a_spec_that_comes_while_it_checks_is_not_missing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `encode` may write one after the listing; none that was never there is taken for such."""
    listed = LocalStore.list
    monkeypatch.setattr(
        LocalStore,
        "list",
        lambda store, prefix="": (e for e in listed(store, prefix) if not e.path.startswith("specs/")),
    )
    assert harm(archive.location) == {}
    archive.store.delete(f"specs/{SPEC.id}.json")
    assert harm(archive.location) == {f"specs/{SPEC.id}.json": "missing"}


def test_a_whole_archive_gives_no_findings(archive: Archive) -> None:
    found = list(verify(archive.location, 1.0, load_codec, Path("/nonexistent")))
    assert [item for item in found if isinstance(item, Finding)] == []
    last = found[-1]
    assert isinstance(last, Checked)
    sizes = [entry.size for entry in archive.store.list()]
    assert replace(last, decode_seconds=None) == Checked(3, 3, len(sizes), sum(sizes), records=12, decoded=12)
    assert last.decode_seconds is not None
    assert 0 < last.decode_seconds < 1


def test_the_sample_to_decode_is_a_share_and_the_same_every_time(archive: Archive) -> None:
    def decoded(seed: int) -> int:
        *_, last = verify(archive.location, 0.5, load_codec, Path("/nonexistent"), seed=seed)
        assert isinstance(last, Checked)
        return last.decoded

    assert decoded(1) == decoded(1)
    assert 0 < sum(decoded(seed) for seed in range(10)) / 10 < 12


def test_a_flipped_bit_in_any_object_is_reported_under_its_name(archive: Archive) -> None:
    rng = random.Random(3)
    for entry in sorted(archive.store.list(), key=lambda entry: entry.path):
        whole = archive.store.read(entry.path)
        for _ in range(4):
            flip(archive, entry.path, rng.randrange(entry.size), rng.randrange(8))
            assert harm(archive.location).get(entry.path) == "damaged", entry.path
            archive.store.write(entry.path, whole)
    assert harm(archive.location) == {}


def test_any_missing_object_is_reported_under_its_name(archive: Archive) -> None:
    for entry in list(archive.store.list()):
        if entry.path.startswith("runs/") and "summary" in entry.path:
            continue
        whole = archive.store.read(entry.path)
        archive.store.delete(entry.path)
        if entry.path.startswith("images/_delta_log/"):
            with_log = {name for name in harm(archive.location) if name.startswith("images/_delta_log")}
            assert entry.path in with_log
        else:
            assert harm(archive.location)[entry.path] == "missing"
        archive.store.write(entry.path, whole)


def test_a_damaged_bitstream_names_its_record_only(archive: Archive, records: list[Record]) -> None:
    assert records[5].image is not None
    path = part_paths(archive)[1]
    place = archive.store.read(path).index(records[5].image.bitstream) + 7
    flip(archive, path, place)
    assert harm(archive.location) == {path: "damaged", KEYS[5]: "damaged"}


def test_without_a_summary_a_run_is_unfinished_and_its_log_unvouched(
    tmp_path: Path, records: list[Record]
) -> None:
    location = locate(str(tmp_path / "archive"))
    found = build(location, records[:4], finish=False)
    plan, ordered = begin(found, records[4:], shard_records=4)
    commit(found, plan, [write(found, plan, ordered, Shard(plan.run, 0, 3))])
    orphan = write(found, plan, ordered, Shard(plan.run, 4, 7))
    kinds = {finding.name: finding.kind for finding in findings(location)}
    assert harm(location) == {}
    assert kinds[f"runs/{plan.run}"] == "unfinished"
    assert kinds[f"images/{orphan.path}"] == "orphan"
    assert kinds["FORMAT.md"] == "unvouched"
    summarise(found, plan, ordered)
    assert harm(location) == {f"runs/{plan.run}": "missing"}


def test_a_key_twice_is_reported(tmp_path: Path, records: list[Record]) -> None:
    """The commit protocol refuses to do this: the part is put there behind its back."""
    location = locate(str(tmp_path / "archive"))
    found = build(location, records[:4])
    plan, ordered = begin(found, records[2:6])
    part = write(found, plan, ordered, Shard(plan.run, 0, 3))
    line = {
        "add": {
            "path": part.path,
            "size": part.size,
            "partitionValues": {},
            "modificationTime": 0,
            "dataChange": True,
            "stats": json.dumps(
                {"numRecords": 4, "minValues": {"key": KEYS[2]}, "maxValues": {"key": KEYS[5]}}
            ),
        }
    }
    found.store.write(f"images/_delta_log/{found.version + 1:020d}.json", json.dumps(line).encode())
    assert harm(location) == {KEYS[2]: "doubled", KEYS[3]: "doubled"}


def test_a_planned_key_that_no_part_holds_is_reported(tmp_path: Path, records: list[Record]) -> None:
    found = build(locate(str(tmp_path / "archive")), records[:2])
    plan, ordered = begin(found, records[2:6])
    table = table_of(ordered[:3], plan.run)
    content = to_parquet(table, Origin(0.1, "cpu"))
    part = describe(plan.run, 0, 3, content, table)
    found.store.write(f"images/{part.path}", content)
    commit(found, plan, [part])
    summarise(found, plan, ordered)
    assert harm(found.location) == {KEYS[5]: "missing"}


def test_a_log_that_lies_about_a_part_is_reported(archive: Archive) -> None:
    (log,) = [e.path for e in archive.store.list("images/_delta_log") if e.path.endswith("1.json")]
    content = archive.store.read(log)
    archive.store.write(log, content.replace(b'numRecords\\": 4', b'numRecords\\": 5'))
    assert archive.store.read(log) != content
    names = [finding.name for finding in findings(archive.location)]
    assert log in names
    assert "images/_delta_log" in names


def test_weights_that_a_spec_names_are_missed(tmp_path: Path, archive: Archive) -> None:
    archive.write_spec(CodecSpec("gan", 1, {}, ("0" * 64,)))
    assert harm(archive.location) == {f"weights/{'0' * 64}.safetensors": "missing"}


def test_an_image_that_does_not_decode_is_found_by_decoding(tmp_path: Path, records: list[Record]) -> None:
    assert records[3].image is not None
    broken = replace(records[3], image=replace(records[3].image, bitstream=b"\x01"))
    found = build(locate(str(tmp_path / "archive")), [*records[:3], broken])
    assert harm(found.location) == {}
    (finding,) = findings(found.location, 1.0)
    assert (finding.kind, finding.name) == ("undecodable", KEYS[3])


def test_where_there_is_no_archive_nothing_is_verified(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="no archive at"):
            findings(locate(str(place)))
    with pytest.raises(ValueError, match="decode fraction 2"):
        list(verify(locate(str(tmp_path)), 2, load_codec, tmp_path))
