"""Restoring from and to S3: how much is read for one row, and one write a file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.codecs import load_codec
from manifests.read import WHOLE_BYTES
from manifests.records import Record
from manifests.storage import Location, connect, locate
from pipelines.images import read_provenance
from pipelines.prices import load_prices
from pipelines.restore import Finished, RestoreJob, Written, plan_restore, restore
from tests.archives import SPEC, build, encoded, small_pictures
from tests.counting_s3 import Requests, counting_s3
from tests.measure.generator import records as generated
from tests.servers import S3Server


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Of realistic keys, captions and sizes; each bitstream is one that decodes."""
    (image,) = [record.image for record in encoded(small_pictures(1, 40, 60), ["x"])]
    assert image is not None
    found = []
    for record in generated(6000, seed=2):
        if record.image is not None:
            whole = replace(image, caption=record.image.caption)
            found.append(replace(record, spec=SPEC.id, image=whole))
    return found


@pytest.fixture(scope="module")
def archive(s3: S3Server, records: list[Record]) -> Location:
    location = s3.location("archive")
    parts = build(location, records, shard_records=3500).parts.values()
    assert max(part.size for part in parts) > WHOLE_BYTES > min(part.size for part in parts)
    return location


@pytest.fixture(scope="module")
def counted(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Requests]]:
    with counting_s3(s3, tmp_path_factory.mktemp("counted") / "log") as found:
        yield found


@pytest.mark.parametrize("place", [0, 1777, 5000])
@pytest.mark.parametrize("way", ["keys", "where"])
def test_one_row_costs_at_most_4_gets_and_400_kb_of_parts(
    counted: tuple[S3Server, Requests],
    archive: Location,
    records: list[Record],
    tmp_path: Path,
    place: int,
    way: str,
) -> None:
    key, (server, requests) = records[place].key, counted
    requests.forget()
    job = RestoreJob(locate(archive.url, server.options), locate(str(tmp_path / "out")))
    job = replace(job, keys=(key,)) if way == "keys" else replace(job, where=f"key = '{key}'")
    events = list(restore(job, load_codec, tmp_path))
    assert [event.key for event in events if isinstance(event, Written)] == [key]
    assert 1 <= len(requests.of_parts()) <= 4
    assert sum(requests.of_parts()) <= 400_000


def test_a_plan_is_no_less_than_what_is_read(
    counted: tuple[S3Server, Requests], archive: Location, records: list[Record], tmp_path: Path
) -> None:
    keys, (server, requests) = tuple(record.key for record in records[100:4200:300]), counted
    requests.forget()
    job = RestoreJob(locate(archive.url, server.options), locate(str(tmp_path / "out")), keys=keys)
    plan = plan_restore(job, load_prices())
    assert requests.of_parts() == []
    finished = list(restore(job, load_codec, tmp_path))[-1]
    assert isinstance(finished, Finished)
    assert finished.written == len(keys) == plan.rows
    assert len(requests.of_parts()) <= plan.requests
    assert sum(requests.of_parts()) <= plan.bytes
    assert plan.dollars == pytest.approx(plan.requests * 0.0004 / 1000)


def test_files_on_s3_are_written_once_each(
    s3: S3Server,
    counted: tuple[S3Server, Requests],
    archive: Location,
    records: list[Record],
    tmp_path: Path,
) -> None:
    output = s3.location("restored")
    keys = tuple(record.key for record in records[:3])
    server, requests = counted
    requests.forget()
    job = RestoreJob(archive, locate(output.url, server.options), keys=keys)
    events = list(restore(job, load_codec, tmp_path))
    again = list(restore(job, load_codec, tmp_path))
    written = [event for event in events if isinstance(event, Written)]
    puts = [path for method, path, _ in requests.seen if method == "PUT"]
    assert sorted(puts) == sorted(f"/{output.url.removeprefix('s3://')}/{event.path}" for event in written)
    for event in written:
        provenance = read_provenance(connect(output).read(event.path))
        assert provenance is not None
        assert provenance.key == event.key
    finished = again[-1]
    assert isinstance(finished, Finished)
    assert (finished.written, finished.kept) == (0, 3)
