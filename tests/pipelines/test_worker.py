import hashlib
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manifests.part import Origin, records_of
from manifests.plan import Shard
from manifests.read import read_whole
from manifests.records import EncodedImage, Record
from manifests.storage import Entry, Store, connect, locate
from pipelines import patience
from pipelines import worker as worker_module
from pipelines.encode_job import EncodeJob
from pipelines.pool import InlinePool
from pipelines.worker import Encoder, EncodeTask, PlannedImage, ShardResult, setup_of, write_crash, write_part
from tests.sources import fill, png
from tests.toy_codec import RAISES, REFUSED, SPEC, ToyCodec, load_toy

RUN = "20260131T120000-0123456789"


@pytest.fixture
def job(tmp_path: Path) -> EncodeJob:
    for name in ("source", "archive"):
        (tmp_path / name).mkdir()
    return EncodeJob(locate(f"{tmp_path}/source"), locate(f"{tmp_path}/archive"), SPEC)


def task_of(job: EncodeJob, keys: list[str], captions: str = "none", digest: bool = False) -> EncodeTask:
    images = tuple(
        PlannedImage(10 + row, key, 100, 1_700_000_000 + row, None) for row, key in enumerate(keys)
    )
    return EncodeTask(Shard(RUN, 10, 9 + len(keys)), images, job.spec.id, captions, digest)


def work(job: EncodeJob, task: EncodeTask) -> tuple[ShardResult, dict[str, Record]]:
    """The result, and the records that lie in the archive, by key."""
    result = Encoder(setup_of(job, load_toy), "cpu")(task)
    table = read_whole(connect(job.archive).read(f"images/{result.part.path}"))
    assert table is not None
    records = [found for found in records_of(table) if isinstance(found, Record)]
    assert len(records) == len(table) == result.part.records
    return result, {record.key: record for record in records}


def test_a_shard_becomes_one_part_with_all_of_its_keys(job: EncodeJob) -> None:
    bad = {"b/bad.png": b"x", "b/refused.png": png(REFUSED)}
    keys = fill(job.source, 30, bad)
    result, records = work(job, task_of(job, keys))
    assert sorted(records) == keys
    assert (result.images, result.failures, result.pixels) == (30, 2, 30 * 48)
    assert (result.part.first, result.part.last) == (10, 41)
    assert result.bitstream_bytes == 90
    assert result.source_bytes == sum(len(connect(job.source).read(key)) for key in keys if key not in bad)
    assert 0 < result.origin.encode_seconds < 30
    assert [entry.path for entry in connect(job.archive).list()] == [f"images/{result.part.path}"]
    record = records["c/image0005.png"]
    colour = bytes([5, 0, 88])  # means, rounded down: 47 of 48 pixels are (5, 0, 90), one is (10, 0, 0)
    assert record.image == EncodedImage(colour, None, 6, 8)
    assert record.mtime == 1_700_000_000 + keys.index(record.key)


def test_the_picture_that_a_codec_refuses_costs_none_of_its_batch(job: EncodeJob) -> None:
    keys = fill(job.source, 7, {"a/refused.png": png(REFUSED)})
    _, records = work(job, task_of(job, keys))
    failed = {key: record.failure for key, record in records.items() if record.failure}
    assert failed == {"a/refused.png": "cannot be encoded: a colour that toys refuse"}


def test_a_file_that_went_after_the_listing_is_a_failure_that_says_so(job: EncodeJob) -> None:
    keys = [*fill(job.source, 2), "z/gone.png"]
    _, records = work(job, task_of(job, keys))
    assert records["z/gone.png"].failure == "missing at the source: it was listed with 100 bytes"
    assert records["z/gone.png"].source_bytes == 100


def test_the_size_kept_is_that_of_the_bytes_that_were_encoded(job: EncodeJob) -> None:
    keys = fill(job.source, 1)
    _, records = work(job, task_of(job, keys))
    assert records[keys[0]].source_bytes == len(png())


def test_a_file_too_large_to_be_read_is_not(job: EncodeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MOST_SOURCE_BYTES", 50)
    _, records = work(job, task_of(job, fill(job.source, 1)))
    assert [record.failure for record in records.values()] == ["file too large: 100 bytes, the limit is 50"]


def test_digests_are_those_of_the_files(job: EncodeJob) -> None:
    keys = fill(job.source, 3, {"z/bad.png": b"no image"})
    _, records = work(job, task_of(job, keys, digest=True))
    for key, record in records.items():
        assert record.digest == hashlib.sha256(connect(job.source).read(key)).digest()[:16]
    assert all(record.digest is None for record in work(job, task_of(job, keys))[1].values())


def test_captions_stand_beside_their_images_and_bad_ones_are_noted(job: EncodeJob) -> None:
    beside = {"a/image0000.txt": b"a caption", "b/image0001.txt": b"\xff"}
    fill(job.source, 3, beside)
    keys = ["a/image0000.png", "b/image0001.png", "c/image0002.png"]
    _, records = work(job, task_of(job, keys, captions="sidecar"))
    images = [records[key].image for key in keys]
    assert [image.caption for image in images if image is not None] == ["a caption", None, None]
    assert str(records[keys[1]].notes).startswith("caption unusable: b/image0001.txt: 'utf-8' codec")
    assert records[keys[2]].notes is None


class Flaky:
    """A source that loses connections before it answers, or a file of which cannot be read."""

    def __init__(self, store: Store, lost: int) -> None:
        self._store, self._lost = store, lost

    def read(self, path: str) -> bytes:
        if path.startswith("z/"):
            raise PermissionError(13, "Permission denied", path)
        if self._lost:
            self._lost -= 1
            raise ConnectionError("reset")
        return self._store.read(path)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.list(prefix)


def with_flaky_source(monkeypatch: pytest.MonkeyPatch, job: EncodeJob, lost: int) -> None:
    flaky = Flaky(connect(job.source), lost)
    monkeypatch.setattr(patience, "connect", lambda where: flaky if where == job.source else connect(where))
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.01)


def test_a_file_that_may_not_be_read_is_a_failure(job: EncodeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = fill(job.source, 2, {"z/secret.png": png()})
    with_flaky_source(monkeypatch, job, lost=0)
    _, records = work(job, task_of(job, keys))
    assert str(records["z/secret.png"].failure).startswith("cannot be read: [Errno 13] Permission denied")


def test_a_source_is_connected_to_anew_where_it_does_not_answer(
    job: EncodeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials may have expired: a new connection finds those of now."""
    keys = fill(job.source, 3)
    stores = iter([Flaky(connect(job.source), lost=1000), connect(job.source)])
    monkeypatch.setattr(patience, "connect", lambda where: next(stores))
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.01)
    source = patience.Patient(job.source)
    assert [source.read(key) for key in keys] == [connect(job.source).read(key) for key in keys]


def test_a_lost_connection_is_tried_again(job: EncodeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = fill(job.source, 1)
    with_flaky_source(monkeypatch, job, lost=2)
    assert work(job, task_of(job, keys))[0].images == 1


def test_a_source_that_is_gone_is_no_failure_of_its_images(
    job: EncodeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(job.source, 20)
    with_flaky_source(monkeypatch, job, lost=10_000)
    with pytest.raises(ConnectionError, match="reset"):
        work(job, task_of(job, keys))
    assert list(connect(job.archive).list()) == []


def test_what_a_codec_raises_beside_refusals_reaches_the_pool_and_leaves_no_part(job: EncodeJob) -> None:
    keys = fill(job.source, 4, {"b/raises.png": png(RAISES)})
    with pytest.raises(RuntimeError, match="a bug in"):
        work(job, task_of(job, keys))
    assert list(connect(job.archive).list()) == []
    pool = InlinePool(lambda device: Encoder(setup_of(job, load_toy), device), "cpu")
    outcomes = list(pool.run([task_of(job, keys)], threading.Event()))
    assert sum(len(outcome.job) for outcome in outcomes) == 5


def test_halves_of_a_task_cover_its_rows_even_where_some_need_no_encoding() -> None:
    images = tuple(PlannedImage(row, f"{row}.png", 1, 0, None) for row in (3, 4, 8, 9, 15))
    task = EncodeTask(Shard(RUN, 0, 20), images, SPEC.id, "none", False)
    one, two = task.halves()
    assert (one.shard, two.shard) == (Shard(RUN, 0, 7), Shard(RUN, 8, 20))
    assert (one.images, two.images) == (images[:2], images[2:])
    first, second = two.halves()
    assert (first.shard.first, first.shard.last, second.shard.first, second.shard.last) == (8, 8, 9, 20)


def test_a_crash_leaves_no_part(job: EncodeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    archive = connect(job.archive)
    monkeypatch.setattr(archive, "write", full)
    record = Record("a.png", 1, 0, SPEC.id, EncodedImage(b"x", None, 1, 1))
    with pytest.raises(OSError, match="No space"):
        write_part(archive, Shard(RUN, 0, 0), [record], Origin(0.0, "cpu"))
    assert list(archive.list()) == []


def test_an_image_that_kills_its_workers_is_a_failure(job: EncodeJob) -> None:
    task = task_of(job, ["a.png"])
    result = write_crash(connect(job.archive), task, "The actor died")
    table = read_whole(connect(job.archive).read(f"images/{result.part.path}"))
    assert table is not None
    assert table["failure"].to_pylist() == ["crashes the worker: The actor died"]
    assert (result.part.first, result.part.last, result.failures) == (10, 10, 1)


def test_reading_is_ahead_of_encoding_and_not_far(job: EncodeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = fill(job.source, 60)
    taken: list[str] = []
    read = patience.Patient.read

    def noted(source: patience.Patient, key: str) -> bytes:
        taken.append(key)
        return read(source, key)

    ahead = []

    class Watching(ToyCodec):
        def encode(self, pictures: object) -> list[EncodedImage]:
            time.sleep(0.02)
            ahead.append(len(taken))
            return super().encode(pictures)  # type: ignore[arg-type]

    monkeypatch.setattr(patience.Patient, "read", noted)
    encoder = Encoder(setup_of(job, lambda spec, weights, device: Watching(spec)), "cpu")
    assert len(list(encoder.records(task_of(job, keys)))) == 60
    batch = 4
    most = worker_module.READ_AHEAD + worker_module.DECODED_AHEAD + 2 + batch
    counts = [taken_so_far - batch * (place + 1) for place, taken_so_far in enumerate(ahead)]
    assert max(counts) <= most
    assert sum(counts[:8]) / 8 >= 8  # and it is ahead


def test_few_large_files_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "READ_AHEAD_BYTES", 100)
    begun: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        return item

    with ThreadPoolExecutor(4) as threads:
        found = worker_module._ahead(threads, begin, range(20), 10, lambda item: 60)
        assert next(found) == 0
        time.sleep(0.05)
        assert begun == [0, 1]
        assert list(found) == list(range(1, 20))


def test_tasks_and_results_are_small_enough_to_travel(job: EncodeJob) -> None:
    keys = fill(job.source, 20)
    result, _ = work(job, task_of(job, keys))
    assert len(pickle.dumps(result)) < 1000
    assert len(pickle.dumps(task_of(job, keys))) < 150 * 20
