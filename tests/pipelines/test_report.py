"""The numbers of a report, counted a second time by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifests.archive import Archive
from manifests.commit import commit
from manifests.plan import Shard
from manifests.records import Record
from manifests.storage import locate
from pipelines.prices import load_prices
from pipelines.report import report
from pipelines.select import select
from tests.archives import SPEC, begin, build, encoded, small_pictures, write

KEYS = ["a.jpg", "ä.jpg", "c.jpg"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    failed = Record("bad.jpg", 77, 1, SPEC.id, image=None, failure="not an image: 77 bytes")
    return [*encoded(small_pictures(3), KEYS), failed]


@pytest.fixture
def archive(tmp_path: Path, records: list[Record]) -> Archive:
    return build(locate(str(tmp_path / "archive")), records, shard_records=2)


def test_every_number_is_what_counting_by_hand_gives(archive: Archive, records: list[Record]) -> None:
    archive.store.write("stray.txt", b"seven b")
    found = report(archive, load_prices())
    folder = Path(archive.location.url)
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    images = [record.image for record in records if record.image is not None]
    bitstream_bytes = sum(len(image.bitstream) for image in images)
    caption_bytes = sum(len((image.caption or "").encode()) for image in images)
    assert (found.images, found.failures) == (3, 1)
    assert (found.source_bytes, found.failed_source_bytes) == (1000 + 1001 + 1002, 77)
    assert found.archive_bytes == on_disk
    assert (found.bitstream_bytes, found.caption_bytes) == (bitstream_bytes, caption_bytes)
    assert found.overhead_bytes == on_disk - bitstream_bytes - caption_bytes
    assert found.pixels == 3 * 24 * 32
    assert found.bpp_all_in == pytest.approx(8 * on_disk / (3 * 24 * 32))
    assert found.ratio == pytest.approx(3003 / on_disk)
    kinds = {kind.kind: kind.count for kind in found.objects}
    assert kinds == {"parts": 2, "log": 2, "plans": 2, "specs": 1, "other": 2}


def test_seconds_come_from_summaries_and_from_the_parts_of_unfinished_runs(
    archive: Archive, records: list[Record]
) -> None:
    assert report(archive, load_prices()).encode_seconds == {"cpu": 1.0}
    plan, ordered = begin(archive, encoded(small_pictures(2), ["x.jpg", "y.jpg"]), 1)
    commit(archive, plan, [write(archive, plan, ordered, Shard(plan.run, 0, 0))])
    found = report(archive, load_prices())
    assert found.encode_seconds == {"cpu": 1.5}
    (line,) = [line for line in found.lines if (line.section, line.what) == ("encode", "encode")]
    assert line.quantity == pytest.approx(1.5 / 3600)
    assert line.unit == "core hour"


def test_decoding_is_unknown_until_it_was_measured(archive: Archive) -> None:
    assert "seconds of decoding" in report(archive, load_prices()).verdict.left_out
    found = report(archive, load_prices(), decode_seconds=0.25)
    assert found.verdict.left_out == ()


def test_decoding_is_priced_as_the_machine_that_it_was_measured_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever machine has encoded: `verify --decode` measures cores."""
    monkeypatch.setattr("pipelines.report._encode_seconds", lambda archive: {"cuda": 7200.0})

    def unit(what: str, **more: object) -> str:
        lines = report(archive, load_prices(), decode_seconds=0.25, **more).lines  # type: ignore[arg-type]
        (found,) = {line.unit for line in lines if line.what.endswith(what)}
        return found

    assert (unit("encode"), unit("decode")) == ("L4 hour", "core hour")
    assert unit("decode", decode_machine="L4") == "L4 hour"
    for wrong in ({"decode_machine": "FOO"}, {"gpu": "FOO"}):
        with pytest.raises(ValueError, match="machine 'FOO', expected one of"):
            unit("decode", **wrong)


@pytest.mark.parametrize("wrong", [{"years": float("inf")}, {"decode_seconds": float("nan")}])
def test_endless_numbers_are_refused(archive: Archive, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 up"):
        report(archive, load_prices(), **wrong)  # type: ignore[arg-type]


def test_strays_among_runs_and_specs_are_no_obstacle(archive: Archive) -> None:
    """Such as file managers leave behind."""
    before = report(archive, load_prices()), select(archive).to_pylist(), archive.runs()
    for path in (
        "runs/.DS_Store",
        "specs/.DS_Store",
        "specs/old/0.json",
        f"runs/{next(iter(archive.runs()))}/x/y",
    ):
        archive.store.write(path, b"x")
    after = report(archive, load_prices()), select(archive).to_pylist(), archive.runs()
    assert (after[0].encode_seconds, *after[1:]) == (before[0].encode_seconds, *before[1:])
    assert list(archive.specs()) == [SPEC.id]


def test_an_empty_archive_has_a_report(tmp_path: Path) -> None:
    found = report(build(locate(str(tmp_path / "archive")), []), load_prices())
    assert (found.images, found.pixels, found.bpp_all_in, found.ratio) == (0, 0, 0.0, 0.0)
    assert found.archive_bytes > 0


def test_a_damaged_summary_is_made_up_for_by_the_parts(archive: Archive) -> None:
    (path,) = [path for path in archive.runs().values() if path]
    archive.store.write(path, archive.store.read(path)[:-1] + b" ")
    assert report(archive, load_prices()).encode_seconds == {"cpu": 1.0}


def test_reports_and_queries_load_neither_torch_nor_ray(archive: Archive) -> None:
    program = (
        "import sys\n"
        "from manifests.storage import locate\n"
        "from pipelines.prices import load_prices\n"
        "from pipelines.report import report\n"
        "from pipelines.select import open_archive, select\n"
        f"archive = open_archive(locate({archive.location.url!r}))\n"
        "report(archive, load_prices()); select(archive)\n"
        "sys.exit(str(sorted({'torch', 'ray', 's3fs'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stderr.strip() == ""
