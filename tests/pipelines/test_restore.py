"""Rows -> pixels and files: names, reconstructions, what is kept, and damage that costs only what it hits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.codecs import load_codec
from manifests.archive import Archive
from manifests.records import Record
from manifests.storage import locate
from pipelines.images import read_provenance
from pipelines.prices import load_prices
from pipelines.reading import Reading
from pipelines.restore import (
    Event,
    Finished,
    Kept,
    Lost,
    Planned,
    Restored,
    RestoreJob,
    Written,
    plan_restore,
    restore,
    restore_rows,
)
from pipelines.restore_worker import RestoreTask
from tests.archives import SPEC, build, encoded, small_pictures

KEYS = ["a/one.jpg", "a/two.JPG", "b.tif", "b.webp", "c"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return encoded(small_pictures(len(KEYS)), KEYS)


@pytest.fixture
def archive(tmp_path: Path, records: list[Record]) -> Archive:
    return build(locate(str(tmp_path / "archive")), records, shard_records=2)


def job(archive: Archive, output: Path, **more: object) -> RestoreJob:
    return RestoreJob(archive.location, locate(str(output)), **more)  # type: ignore[arg-type]


def run(given: RestoreJob, cache: Path = Path("/nonexistent")) -> list[Event]:
    return list(restore(given, load_codec, cache))


def lost_of(events: Sequence[Event]) -> dict[str, str]:
    return {event.key: event.why for event in events if isinstance(event, Lost)}


def pixels_of(records: Sequence[Record]) -> dict[str, bytes]:
    """By decoding the bitstreams directly."""
    codec = load_codec(SPEC, {}, "cpu")
    return {record.key: codec.decode([record.image])[0].tobytes() for record in records if record.image}


def test_rows_come_back_as_the_pixels_that_their_codec_decodes(
    archive: Archive, records: list[Record], tmp_path: Path
) -> None:
    found = list(restore_rows(archive, [*KEYS, "nowhere"], load_codec, tmp_path, "cpu"))
    assert {row.key: row.pixels_hwc.tobytes() for row in found if isinstance(row, Restored)} == pixels_of(
        records
    )
    assert [row for row in found if isinstance(row, Lost)] == [Lost("nowhere", "not in the archive")]


def test_files_are_named_after_keys_and_say_that_they_are_reconstructions(
    archive: Archive, records: list[Record], tmp_path: Path
) -> None:
    events = run(job(archive, tmp_path / "out"))
    assert isinstance(events[0], Planned)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.written, finished.kept, finished.lost, finished.complete) == (5, 0, 0, True)
    names = {
        "a/one.png": "a/one.jpg",
        "a/two.png": "a/two.JPG",
        "b.tif.png": "b.tif",
        "b.webp.png": "b.webp",
        "c.png": "c",
    }
    assert {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    } == set(names)
    for name, key in names.items():
        content = (tmp_path / "out" / name).read_bytes()
        with Image.open(tmp_path / "out" / name) as image:
            assert np.array(image).tobytes() == pixels_of(records)[key]
        provenance = read_provenance(content)
        assert provenance is not None
        assert (provenance.key, provenance.codec, provenance.spec) == (key, "avif", SPEC.id)
        assert provenance.caption == f"caption of {key}"
        assert provenance.archive == archive.location.url
        assert not provenance.generative


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_other_formats_have_the_same_sizes(archive: Archive, tmp_path: Path, format: str) -> None:
    events = run(job(archive, tmp_path / "out", keys=("c",), format=format))
    (written,) = [event for event in events if isinstance(event, Written)]
    assert written.path == {"jpeg": "c.jpg", "webp": "c.webp", "avif": "c.avif"}[format]
    with Image.open(tmp_path / "out" / written.path) as image:
        assert image.size == (32, 24)
    assert written.size == (tmp_path / "out" / written.path).stat().st_size


def test_existing_files_are_kept_unless_overwritten(archive: Archive, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "a").mkdir(parents=True)
    (output / "a/one.png").write_bytes(b"mine")
    events = run(job(archive, output, where="key LIKE 'a/%'"))
    assert [event for event in events if isinstance(event, Kept)] == [Kept("a/one.jpg", "a/one.png")]
    assert (output / "a/one.png").read_bytes() == b"mine"
    events = run(job(archive, output, where="key LIKE 'a/%'", overwrite=True))
    assert {event.path for event in events if isinstance(event, Written)} == {"a/one.png", "a/two.png"}
    assert (output / "a/one.png").read_bytes() != b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_restore_does_not_take_another_keys_file_for_its_own(
    archive: Archive, tmp_path: Path, overwrite: bool
) -> None:
    run(job(archive, tmp_path / "out", keys=("b.tif",)))
    before = (tmp_path / "out/b.png").read_bytes()
    events = run(job(archive, tmp_path / "out", keys=("b.webp",), overwrite=overwrite))
    assert [event.path for event in events if isinstance(event, Written)] == ["b.webp.png"]
    assert (tmp_path / "out/b.png").read_bytes() == before


def test_keys_that_end_in_two_suffixes_take_no_other_keys_file(tmp_path: Path) -> None:
    keys = ("b.gif", "b.jpg", "b.jpg.gif", "c.png")
    made = encoded(small_pictures(len(keys)), list(keys))
    archive = build(locate(f"{tmp_path}/archive"), made)
    out, pixels = tmp_path / "out", pixels_of(made)
    for asked in (("b.gif",), ("b.jpg", "b.jpg.gif")):
        events = run(job(archive, out, keys=asked))
        written = {event.key: event.path for event in events if isinstance(event, Written)}
        assert sorted(written) == sorted(asked)
        for key, path in written.items():
            assert np.array(Image.open(out / path)).tobytes() == pixels[key]
    assert sorted(path.name for path in out.iterdir()) == ["b.jpg.gif.png", "b.jpg.png", "b.png"]
    other = tmp_path / "other"
    for asked in (("b.jpg.gif",), ("b.jpg", "b.gif")):
        events = run(job(archive, other, keys=asked))
    written = {event.key: event.path for event in events if isinstance(event, Written)}
    assert written == {"b.jpg": "b.jpg.png.png", "b.gif": "b.gif.png"}
    assert np.array(Image.open(other / "b.jpg.png")).tobytes() == pixels["b.jpg.gif"]


def test_a_lost_plan_does_not_stand_in_the_way(archive: Archive, tmp_path: Path) -> None:
    (run_name,) = archive.runs()
    archive.store.delete(f"runs/{run_name}/plan.parquet")
    events = run(job(archive, tmp_path / "out", keys=("b.tif",)))
    assert [event.key for event in events if isinstance(event, Written)] == ["b.tif"]


def test_no_key_escapes_the_output(tmp_path: Path) -> None:
    bad = [
        "../up.jpg",
        "/abs.jpg",
        "a/../../up.jpg",
        "nul\0.jpg",
        "C:/x.jpg",
        "..\\up.jpg",
        "a//b.jpg",
        "./c.jpg",
    ]
    archive = build(locate(str(tmp_path / "archive")), encoded(small_pictures(9), [*bad, "good.jpg"]))
    events = run(job(archive, tmp_path / "down/out"))
    assert set(lost_of(events)) == set(bad)
    assert [event.path for event in events if isinstance(event, Written)] == ["good.png"]
    written = {path for path in tmp_path.rglob("*") if path.is_file() and "archive" not in path.parts}
    assert written == {tmp_path / "down/out/good.png"}


def test_a_name_that_the_disk_refuses_costs_its_image_only(tmp_path: Path) -> None:
    keys = ["a.png/below.jpg", "a.jpg", "n" * 260 + ".jpg", "z.jpg"]
    archive = build(locate(str(tmp_path / "archive")), encoded(small_pictures(4), keys))
    events = run(job(archive, tmp_path / "out"))
    assert len([event for event in events if isinstance(event, Written)]) == 2
    assert "n" * 260 + ".jpg" in lost_of(events)
    assert len(lost_of(events)) == 2


def test_nothing_is_written_into_the_archive_or_its_source(archive: Archive) -> None:
    for output in (archive.location.url + "/images", archive.location.url, "/photos/below"):
        with pytest.raises(ValueError, match="expected one outside"):
            run(RestoreJob(archive.location, locate(output)))


def test_a_file_that_would_land_in_the_archive_is_refused(tmp_path: Path) -> None:
    archive = build(locate(str(tmp_path / "x")), encoded(small_pictures(2), ["x/images/y.jpg", "y.jpg"]))
    assert list(lost_of(run(RestoreJob(archive.location, locate(str(tmp_path)))))) == ["x/images/y.jpg"]
    assert not (tmp_path / "x/images/y.png").exists()


def test_names_that_differ_in_case_only_are_mentioned(tmp_path: Path) -> None:
    archive = build(
        locate(str(tmp_path / "archive")), encoded(small_pictures(3), ["A.jpg", "a.jpg", "b.jpg"])
    )
    plan = plan_restore(job(archive, tmp_path / "out"), load_prices())
    assert plan.alike == ("A.png", "a.png")


def test_a_plan_names_rows_parts_bytes_and_requests_and_writes_nothing(
    archive: Archive, tmp_path: Path
) -> None:
    plan = plan_restore(
        job(archive, tmp_path / "out", keys=("a/one.jpg", "a/two.JPG", "c", "x")), load_prices()
    )
    sizes = [part.size for part in archive.parts.values() if part.min_key in ("a/one.jpg", "c")]
    assert (plan.rows, plan.parts, plan.bytes, plan.requests) == (4, 2, sum(sizes), 2)
    assert plan.dollars == 0
    assert plan.lost == (Lost("x", "not in the archive"),)
    assert not (tmp_path / "out").exists()


def test_conditions_keys_and_limits_go_together(archive: Archive, tmp_path: Path) -> None:
    def keys(**more: object) -> set[str]:
        return {
            e.key
            for e in run(job(archive, tmp_path / "out", overwrite=True, **more))
            if isinstance(e, Written)
        }

    assert keys(where="caption LIKE '%one%'") == {"a/one.jpg"}
    assert keys(where="key > 'b'", limit=1) == {"b.tif"}
    assert keys(where="key > 'b'", keys=("a/one.jpg", "c")) == {"c"}
    assert keys(keys=("c", "a/one.jpg"), limit=1) == {"a/one.jpg"}


def test_failures_are_lost_with_their_reason(tmp_path: Path, records: list[Record]) -> None:
    failed = Record("bad.jpg", 5, 1, SPEC.id, image=None, failure="not an image: 5 bytes")
    archive = build(locate(str(tmp_path / "archive")), [*records, failed])
    events = run(job(archive, tmp_path / "out", keys=("bad.jpg", "c")))
    assert lost_of(events) == {"bad.jpg": "it was not archived: not an image: 5 bytes"}
    assert not lost_of(run(job(archive, tmp_path / "all")))
    many = ("bad.jpg", "c", *(f"none{number}" for number in range(600)))
    lost = lost_of(run(job(archive, tmp_path / "many", keys=many)))
    assert lost.pop("bad.jpg") == "it was not archived: not an image: 5 bytes"
    assert set(lost.values()) == {"not in the archive"}


def test_keys_of_runs_that_interleave_are_found(tmp_path: Path, records: list[Record]) -> None:
    location = locate(str(tmp_path / "archive"))
    build(location, records[::2], shard_records=1)
    archive = build(location, records[1::2])
    found = list(restore_rows(archive, KEYS, load_codec, tmp_path, "cpu"))
    assert {row.key: row.pixels_hwc.tobytes() for row in found if isinstance(row, Restored)} == pixels_of(
        records
    )
    assert not [row for row in found if isinstance(row, Lost)]


def test_a_missing_part_costs_its_own_images_whatever_way_they_are_asked_for(
    archive: Archive, tmp_path: Path
) -> None:
    (part,) = [part for part in archive.parts.values() if part.min_key == "a/one.jpg"]
    archive.store.delete(f"images/{part.path}")
    for more in ({}, {"keys": tuple(KEYS)}, {"where": "width = 32"}):
        events = run(job(archive, tmp_path / "out", overwrite=True, **more))
        assert set(lost_of(events)) == {"a/one.jpg", "a/two.JPG"}
        assert all("part missing" in why for why in lost_of(events).values())
        assert {event.key for event in events if isinstance(event, Written)} == {"b.tif", "b.webp", "c"}


def test_a_spec_with_a_flipped_bit_is_mended_and_a_lost_one_is_named(
    archive: Archive, tmp_path: Path
) -> None:
    path = f"specs/{SPEC.id}.json"
    content = bytearray(archive.store.read(path))
    content[20] ^= 4
    archive.store.write(path, bytes(content))
    assert not lost_of(run(job(archive, tmp_path / "out")))
    archive.store.write(path, bytes(content[:-1]))
    assert set(lost_of(run(job(archive, tmp_path / "none")))) == set(KEYS)


def test_a_bitstream_that_does_not_decode_costs_its_image_only(tmp_path: Path, records: list[Record]) -> None:
    assert records[1].image is not None
    broken = replace(records[1], image=replace(records[1].image, bitstream=b"\x00\x01\x02"))
    archive = build(locate(str(tmp_path / "archive")), [records[0], broken, *records[2:]])
    events = run(job(archive, tmp_path / "out"))
    assert list(lost_of(events)) == [broken.key]
    assert lost_of(events)[broken.key].startswith("cannot be decoded: ValueError")
    assert len([event for event in events if isinstance(event, Written)]) == 4


def test_workers_of_a_cluster_restore_the_same_files(archive: Archive, tmp_path: Path) -> None:
    run(job(archive, tmp_path / "here"))
    events = run(job(archive, tmp_path / "there", workers=1, keys=(*KEYS, "nowhere")))
    assert lost_of(events) == {"nowhere": "not in the archive"}
    for event in events:
        if isinstance(event, Written):
            assert (tmp_path / "there" / event.path).read_bytes() == (
                tmp_path / "here" / event.path
            ).read_bytes()
    assert len([event for event in events if isinstance(event, Written)]) == 5


def test_a_task_is_cut_into_pieces_that_hold_each_key_once(archive: Archive) -> None:
    readings = tuple(Reading(part, (f"{part.first} a", f"{part.first} b")) for part in archive.parts.values())
    task = RestoreTask(readings, {key: key for reading in readings for key in reading.keys})
    pieces = list(task.pieces(4))
    assert [len(piece) for piece in pieces] == [4, 2]
    assert [key for piece in pieces for key in piece.keys] == task.keys
    first, second = task.halves()
    assert (len(first), len(second)) == (3, 3)
    assert first.keys + second.keys == task.keys
    assert set(second.names) == set(second.keys)
