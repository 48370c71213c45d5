"""Restoring from and to S3: how much is read for one row, and one write a file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.codecs import load_codec
from manifests.part import Damaged
from manifests.read import WHOLE_BYTES
from manifests.records import Record
from manifests.storage import Location, connect, locate
from pipelines.images import read_provenance
from pipelines.prices import load_prices
from pipelines.restore import Finished, RestoreJob, Written, plan_restore, restore
from pipelines.select import open_archive, select
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


@pytest.fixture(scope="module")
def one_part(s3: S3Server, records: list[Record]) -> Location:
    """Of 2,000 records, as `encode` cuts them, and so small that one request gets it."""
    location = s3.location("one-part")
    (part,) = build(location, records[:2000], shard_records=2000).parts.values()
    assert part.size <= WHOLE_BYTES
    return location


@pytest.fixture(scope="module")
def large_part(s3: S3Server, records: list[Record]) -> Location:
    """Several times what may be read for a row."""
    location = s3.location("large-part")
    (image,) = {record.image for record in records[:1]}
    assert image is not None
    padded = replace(image, bitstream=image.bitstream + bytes(1500))
    large = [records[0], *(replace(record, image=padded) for record in records[1:2000])]
    (part,) = build(location, large, shard_records=2000).parts.values()
    assert part.size > 5 * WHOLE_BYTES
    return location


@pytest.mark.parametrize("place", ["one_part", "large_part"])
def test_one_row_by_a_condition_costs_at_most_4_gets_and_400_kb_of_parts(
    counted: tuple[S3Server, Requests],
    records: list[Record],
    tmp_path: Path,
    place: str,
    request: pytest.FixtureRequest,
) -> None:
    archive: Location = request.getfixturevalue(place)
    wanted, (server, requests) = records[0], counted
    requests.forget()
    caption = wanted.image.caption if wanted.image is not None else None
    where = f"caption LIKE '%{caption}%' AND width = 60 AND mtime = {wanted.mtime}"
    job = RestoreJob(locate(archive.url, server.options), locate(str(tmp_path / "out")), where=where)
    events = list(restore(job, load_codec, tmp_path))
    assert [event.key for event in events if isinstance(event, Written)] == [wanted.key]
    assert 1 <= len(requests.of_parts()) <= 4
    assert sum(requests.of_parts()) <= 400_000


def test_a_condition_over_several_parts_costs_two_gets_a_part_and_the_row_one_more(
    counted: tuple[S3Server, Requests], archive: Location, records: list[Record], tmp_path: Path
) -> None:
    """It must look into each; what it read of the row's part is not read again."""
    wanted, (server, requests) = records[5000], counted
    location = locate(archive.url, server.options)
    parts = open_archive(location).parts
    requests.forget()
    caption = wanted.image.caption if wanted.image is not None else None
    where = f"caption = '{caption}' AND source_bytes = {wanted.source_bytes}"
    events = list(
        restore(RestoreJob(location, locate(str(tmp_path / "out")), where=where), load_codec, tmp_path)
    )
    assert [event.key for event in events if isinstance(event, Written)] == [wanted.key]
    assert len(requests.of_parts()) <= 2 * len(parts) + 1
    assert sum(requests.of_parts()) <= sum(part.size for part in parts.values()) / 2


def test_a_condition_over_damaged_parts_on_s3_names_what_it_cannot_see(
    s3: S3Server, records: list[Record]
) -> None:
    """A flipped bit among the keys, and a part that is gone."""
    location = s3.location("damaged")
    first, second = sorted(build(location, records[:200], shard_records=100).parts)
    store = connect(location)
    content = bytearray(store.read(f"images/{first}"))
    content[300] ^= 1
    store.write(f"images/{first}", bytes(content))
    store.delete(f"images/{second}")
    told: list[Damaged] = []
    found = select(open_archive(location), "width = 60", tell=told.append)
    assert sorted([*found["key"].to_pylist(), *(one.key for one in told)]) == [r.key for r in records[:200]]
    assert {one.key for one in told} >= {record.key for record in records[100:200]}
    with pytest.raises(ValueError, match="damaged or lost"):
        select(open_archive(location), "width = 60")


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
