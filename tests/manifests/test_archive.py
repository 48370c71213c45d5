import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from manifests.archive import Archive, Summary, create, exists, paths_at, summary_path
from manifests.part import SCHEMA
from manifests.plan import PLAN_SCHEMA, PlanHead
from manifests.records import CodecSpec
from manifests.storage import Location, locate
from tests.servers import S3Server

SPEC = CodecSpec("toy", 1, {"quality": 3, "chroma": "4:2:0"}, ("ab" * 32,))


@pytest.fixture(params=["local", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(f"{tmp_path}/archive")
    server: S3Server = request.getfixturevalue("s3")
    return server.location("archive")


def test_an_archive_exists_once_it_was_created(location: Location) -> None:
    assert not exists(location)
    with pytest.raises(ValueError, match="no archive at"):
        Archive(location)
    create(location)
    assert exists(location)
    archive = create(location)  # another driver was faster
    assert (archive.version, archive.parts, archive.runs(), archive.specs()) == (0, {}, {}, {})


def test_an_archive_explains_itself(location: Location) -> None:
    archive = create(location)
    text = archive.store.read("FORMAT.md").decode()
    assert text.startswith("# Archive format 1")
    for name in SCHEMA.names:
        assert f"| {name}" in text or f"| {name}," in text or f", {name} |" in text, name


def test_the_table_needs_no_feature_that_simple_readers_lack(tmp_path: Path) -> None:
    create(locate(f"{tmp_path}/archive"))
    table = DeltaTable(f"{tmp_path}/archive/images")
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert [field.name for field in table.schema().fields] == SCHEMA.names
    assert table.metadata().partition_columns == []


def test_a_table_of_another_kind_is_no_archive(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(f"{tmp_path}/other/images", pa.table({"x": [1]}))
    with pytest.raises(ValueError, match="this program reads 'archiver format 1'"):
        Archive(locate(f"{tmp_path}/other"))


def test_specs_are_kept_under_the_hash_of_their_bytes(location: Location) -> None:
    archive = create(location)
    archive.write_spec(SPEC)
    assert archive.spec(SPEC.id) == SPEC
    assert archive.specs() == {SPEC.id: SPEC}
    content = archive.store.read(f"specs/{SPEC.id}.json")
    assert hashlib.sha256(content).hexdigest()[:16] == SPEC.id
    archive.store.write(f"specs/{SPEC.id}.json", content.replace(b"3", b"8"))
    with pytest.raises(ValueError, match=f"specs/{SPEC.id}.json is damaged"):
        archive.spec(SPEC.id)


def test_a_run_is_unfinished_until_its_summary_is_there(location: Location) -> None:
    archive = create(location)
    rows = pa.Table.from_pydict({name: [] for name in PLAN_SCHEMA.names}, schema=PLAN_SCHEMA)
    later, earlier = (
        archive.write_plan(PlanHead("/photos", SPEC.id, f"{day}T12:00:00Z", 0, "none", False, 10), rows)
        for day in ("2026-02-01", "2026-01-31")
    )
    assert archive.runs() == {earlier.run: None, later.run: None}
    assert list(archive.runs()) == [earlier.run, later.run]
    assert archive.plan(later.run) == later
    summary = Summary(earlier.run, "2026-01-31T12:01:00Z", 3, 1, {"cpu": 1.5}, {"FORMAT.md": "00"})
    archive.write_summary(summary)
    other = Summary(earlier.run, "2026-01-31T12:01:01Z", 3, 1, {"cpu": 1.5}, {"FORMAT.md": "00"})
    archive.write_summary(other)  # two drivers at once
    expected = min(summary_path(earlier.run, one.to_json()) for one in (summary, other))
    assert archive.runs() == {earlier.run: expected, later.run: None}
    assert archive.summary(expected) in (summary, other)
    archive.store.write(expected, archive.store.read(expected).replace(b"1.5", b"2.5"))
    with pytest.raises(ValueError, match="is damaged"):
        archive.summary(expected)


def test_objects_without_a_hash_in_their_name_can_be_vouched_for(location: Location) -> None:
    archive = create(location)
    found = dict(archive.unvouched(set()))
    log = "images/_delta_log/00000000000000000000.json"
    assert found == {
        path: hashlib.sha256(archive.store.read(path)).hexdigest() for path in ("FORMAT.md", log)
    }
    assert dict(archive.unvouched({log})) == {"FORMAT.md": found["FORMAT.md"]}


def test_a_version_tells_its_parts(location: Location) -> None:
    create(location)
    assert paths_at(location, 0) == frozenset()


GIVEN = {"name": "toy", "version": 1, "params": {"quality": 3}, "weights": []}
DONE = Summary("20260131T120000-0123456789", "2026-01-31T12:01:00Z", 3, 1, {"cpu": 2}, {"FORMAT.md": "00"})
TOLD = json.loads(DONE.to_json())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[1]", "a codec spec is list in JSON, expected an object"),
        (b"\xff", "a codec spec is no JSON"),
        (b"[" * 100_000, "a codec spec is no JSON"),
        (json.dumps(GIVEN | {"seed": 7}).encode(), r"says \['seed'\], which only a newer program knows"),
        (b'{"name":"toy","version":1}', r"does not say \['params', 'weights'\]"),
        (json.dumps(GIVEN | {"version": "1"}).encode(), "says version '1', expected int"),
        (json.dumps(GIVEN | {"version": True}).encode(), "says version True, expected int"),
        (json.dumps(GIVEN | {"weights": [5]}).encode(), r"says weights \[5\], expected list\[str\]"),
        (json.dumps(GIVEN | {"params": {"scale": [1]}}).encode(), r"says params {'scale': \[1\]}, expected"),
    ],
)
def test_what_is_no_spec_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CodecSpec.from_json(content)


@pytest.mark.parametrize("value", [1, 0.5, "4:2:0", True])
def test_a_spec_of_any_kind_of_parameter_comes_back(value: int | float | str | bool) -> None:
    spec = CodecSpec("toy", 1, {"x": value})
    assert CodecSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([1], "a summary is list in JSON, expected an object"),
        ({"format": 2}, "summary format of run None is not 1"),
        ({"format": 1, "run": "x"}, r"a summary does not say \['finished', 'images', "),
        (TOLD | {"objects": ["FORMAT.md"]}, r"says objects \['FORMAT.md'\], expected dict\[str, str\]"),
        (TOLD | {"objects": {"FORMAT.md": [0]}}, "says objects .*, expected"),
        (TOLD | {"encode_seconds": {"cpu": "long"}}, "says encode_seconds .*, expected"),
    ],
)
def test_what_is_no_summary_is_refused(told: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Summary.from_json(json.dumps(told).encode())


def test_what_newer_programs_add_to_a_summary_is_passed_over() -> None:
    assert Summary.from_json(json.dumps(TOLD | {"watts": 300}).encode()) == DONE
