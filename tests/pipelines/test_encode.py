import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.archive import Archive
from manifests.plan import Shard
from manifests.records import CodecSpec
from manifests.storage import Location, connect, locate
from pipelines.encode import Adopted, EncodeJob, Event, Finished, Planned, ShardDone, encode, estimate
from pipelines.listing import plan_run
from pipelines.worker import EncodeTask, planned_images, setup_of, start_encoder
from tests.servers import S3Server
from tests.sources import check_complete, failures, fill, png, rows
from tests.toy_codec import KILLS, RAISES, REFUSED, SPEC, load_toy


@pytest.fixture
def job(tmp_path: Path) -> EncodeJob:
    (tmp_path / "source").mkdir()
    return EncodeJob(locate(f"{tmp_path}/source"), locate(f"{tmp_path}/archive"), SPEC, shard_records=10)


def run(job: EncodeJob) -> tuple[list[Event], Finished]:
    events = list(encode(job, load_toy))
    assert isinstance(events[-1], Finished)
    return events, events[-1]


def planned(events: list[Event]) -> Planned:
    (found,) = [event for event in events if isinstance(event, Planned)]
    return found


def contents(location: Location) -> dict[str, tuple[int, bytes]]:
    """All objects, with their times."""
    store = connect(location)
    return {entry.path: (entry.mtime, store.read(entry.path)) for entry in store.list()}


BAD = {
    "a/bad1.jpg": b"",
    "a/bad2.jpg": b"no image at all",
    "b/bad3.png": png()[:60],
    "b/refused.png": png(REFUSED),
    "c/raises.png": png(RAISES),
}


def test_every_image_ends_as_an_image_or_a_failure_that_says_why(job: EncodeJob) -> None:
    keys = fill(job.source, 45, BAD)
    _, finished = run(job)
    check_complete(job.archive, keys)
    assert (finished.images, finished.failures, finished.complete) == (45, 5, True)
    found = failures(job.archive)
    assert sorted(found) == sorted(BAD)
    words = (
        "empty file",
        "not an image",
        "damaged image",
        "cannot be encoded: a colour",
        "crashes the worker: Runt",
    )
    for key, begins in zip(BAD, words, strict=True):
        assert found[key].startswith(begins), found[key]
        assert "\n" not in found[key]


def test_nothing_below_the_source_is_written_or_deleted(job: EncodeJob) -> None:
    fill(job.source, 12, BAD)
    before = contents(job.source)
    run(job)
    assert contents(job.source) == before


def test_a_second_call_encodes_nothing_and_writes_nothing(job: EncodeJob) -> None:
    fill(job.source, 25, BAD)
    run(job)
    before = contents(job.archive)
    events, finished = run(job)
    assert planned(events).run is None
    assert planned(events).changes.unchanged == 30
    assert not [event for event in events if isinstance(event, ShardDone)]
    assert (finished.images, finished.failures, finished.runs) == (0, 0, ())
    assert contents(job.archive) == before


def test_new_and_changed_keys_are_added_and_deleted_ones_stay(job: EncodeJob) -> None:
    keys = fill(job.source, 30)
    run(job)
    store = connect(job.source)
    store.write("d/new.png", png(number=1))
    store.write("a/image0000.png", png(number=77) + b"longer")
    store.delete("b/image0001.png")
    events, finished = run(job)
    changes = planned(events).changes
    assert (changes.new, changes.changed, changes.unchanged, changes.deleted) == (1, 1, 28, 1)
    assert finished.images == 2
    check_complete(job.archive, [*keys, "d/new.png"])
    runs = {row["key"]: row["run"] for row in rows(job.archive).to_pylist()}
    assert runs["a/image0000.png"] == runs["d/new.png"] == finished.runs[0] != runs["a/image0003.png"]


def test_an_image_gives_way_to_a_newer_image_alone(job: EncodeJob) -> None:
    keys = fill(job.source, 30, {"bad.png": b"no image"})
    run(job)
    store = connect(job.source)
    before = {row["key"]: row for row in rows(job.archive).to_pylist()}
    store.write("a/image0000.png", png()[:60])
    store.write("b/image0001.png", png(number=99) + b"longer")
    store.write("bad.png", b"no image still")
    events, finished = run(job)
    assert planned(events).changes.changed == 3
    assert (finished.images, finished.failures, list(finished.kept)) == (1, 2, ["a/image0000.png"])
    assert finished.kept["a/image0000.png"].startswith("damaged image: ")
    check_complete(job.archive, keys)
    after = {row["key"]: row for row in rows(job.archive).to_pylist()}
    assert {key for key in keys if before[key] != after[key]} == {"b/image0001.png", "bad.png"}
    assert after["a/image0000.png"]["failure"] is None
    summary = Archive(job.archive).runs()[finished.runs[0]]
    assert summary is not None
    told = Archive(job.archive).summary(summary)
    assert (told.images, told.failures) == (1, 1)
    store.write("a/image0000.png", png(number=98) + b"mended")
    _, finished = run(job)
    assert (finished.images, finished.failures, finished.kept) == (1, 0, {})
    assert rows(job.archive).to_pylist()[0]["run"] == finished.runs[0]


def test_an_image_stays_when_its_changed_file_is_gone_before_it_is_read(job: EncodeJob) -> None:
    """Also by a driver that adopts the part of one that was cut off before it could commit."""
    keys = fill(job.source, 3)
    run(job)
    store = connect(job.source)
    store.write(keys[1], png(number=5) + b"longer")
    archive = Archive(job.archive)
    plan, _ = plan_run(
        archive,
        job.source,
        job.spec,
        job.selection,
        "none",
        None,
        "none",
        None,
        False,
        job.records_a_shard,
        False,
    )
    assert plan is not None
    store.delete(keys[1])
    image = next(planned_images(plan.rows, 0))
    task = EncodeTask(Shard(plan.run, 0, 0), (image,), job.spec.id, "none", False)
    start_encoder(setup_of(job, load_toy), "cpu")(task)
    _, finished = run(job)
    assert finished.kept == {keys[1]: "missing at the source: it was listed with 92 bytes"}
    assert (finished.images, finished.failures) == (0, 1)
    check_complete(job.archive, keys)
    assert failures(job.archive) == {}
    assert run(job)[1].runs == ()


def test_a_key_whose_time_alone_has_changed_is_encoded_again(job: EncodeJob) -> None:
    keys = fill(job.source, 3)
    run(job)
    os.utime(f"{job.source.url}/{keys[1]}", (1_000_000_000, 1_000_000_000))
    events, finished = run(job)
    assert planned(events).changes.changed == finished.images == 1
    check_complete(job.archive, keys)


def test_failures_are_tried_again_only_when_asked(job: EncodeJob) -> None:
    keys = fill(job.source, 12, {"bad.png": b"x" * 100})
    run(job)
    stamp = os.stat(f"{job.source.url}/bad.png").st_mtime
    good = png(number=3)
    connect(job.source).write("bad.png", good + b"\0" * (100 - len(good)))  # looks as it did
    os.utime(f"{job.source.url}/bad.png", (stamp, stamp))
    assert run(job)[1].images == 0
    assert list(failures(job.archive)) == ["bad.png"]
    events, finished = run(replace(job, retry_failures=True))
    assert (planned(events).changes.retried, finished.images, finished.failures) == (1, 1, 0)
    assert failures(job.archive) == {}
    check_complete(job.archive, keys)


def test_an_abandoned_run_is_finished_first_and_its_parts_are_adopted(job: EncodeJob) -> None:
    keys = fill(job.source, 100)
    job = replace(job, shard_records=20)
    events = encode(job, load_toy)
    first = next(events)
    assert isinstance(first, Planned)
    for _ in range(2):
        assert isinstance(next(events), ShardDone)
    assert isinstance(events, Iterator)
    del events  # two parts lie there, and no commit names them
    assert Archive(job.archive).parts == {}
    fresh, finished = run(job)
    assert fresh[0] == Adopted(str(first.run), 2, 40, 100)
    assert finished.images == 60
    assert planned(fresh).run is None
    check_complete(job.archive, keys)
    summaries = [Archive(job.archive).summary(str(path)) for path in Archive(job.archive).runs().values()]
    assert [(summary.images, summary.failures) for summary in summaries] == [(100, 0)]


OTHER_SPEC = CodecSpec("toy", 1, {"other": True})  # a driver with it takes no other's run for its own


@pytest.mark.parametrize("spec", [SPEC, OTHER_SPEC])
def test_two_drivers_at_the_same_time_add_each_key_once(job: EncodeJob, spec: CodecSpec) -> None:
    keys, before = fill(job.source, 70), signal.getsignal(signal.SIGTERM)
    first, second = encode(job, load_toy), encode(replace(job, spec=spec), load_toy)
    begun = [next(first), next(second), next(first), next(second)]
    assert isinstance(begun[1], Adopted if spec == SPEC else Planned)
    ends = [list(events)[-1] for events in (first, second)]
    assert all(isinstance(end, Finished) and end.complete for end in ends)
    assert signal.getsignal(signal.SIGTERM) == before
    check_complete(job.archive, keys)


def test_what_another_run_has_added_meanwhile_is_not_encoded_when_a_run_is_resumed(job: EncodeJob) -> None:
    keys = fill(job.source, 40)
    abandoned = encode(job, load_toy)
    next(abandoned)
    del abandoned
    run(replace(job, spec=OTHER_SPEC))
    _, finished = run(job)
    assert (finished.images, finished.failures, len(finished.runs)) == (0, 0, 1)
    check_complete(job.archive, keys)


def test_sigterm_finishes_what_has_begun_and_leaves_the_rest_for_the_next_call(job: EncodeJob) -> None:
    keys, before = fill(job.source, 200), signal.getsignal(signal.SIGTERM)
    job = replace(job, shard_records=32)
    events = encode(job, load_toy)
    seen = [next(events), next(events)]
    os.kill(os.getpid(), signal.SIGTERM)
    seen += events
    last = seen[-1]
    assert isinstance(last, Finished)
    assert not last.complete
    assert len(rows(job.archive)) == last.images == 32
    assert signal.getsignal(signal.SIGTERM) == before
    assert run(job)[1].complete
    check_complete(job.archive, keys)


def test_the_archive_holds_spec_and_format_before_its_first_part(job: EncodeJob) -> None:
    fill(job.source, 5)
    events = encode(job, load_toy)
    next(events)
    held = contents(job.archive)
    assert held[f"specs/{SPEC.id}.json"][1] == SPEC.to_json()
    assert "FORMAT.md" in held
    events.close()  # type: ignore[attr-defined]


def test_a_source_that_does_not_exist_leaves_no_archive_behind(job: EncodeJob, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(encode(replace(job, source=locate(f"{tmp_path}/nowhere")), load_toy))
    assert not (tmp_path / "archive").exists()


def test_an_empty_source_is_an_empty_archive(job: EncodeJob) -> None:
    events, finished = run(job)
    assert planned(events).run is None
    assert finished.complete
    assert len(rows(job.archive)) == 0


def test_the_same_keys_of_another_source_are_refused(job: EncodeJob, tmp_path: Path) -> None:
    fill(job.source, 5)
    run(job)
    other = locate(f"{tmp_path}/other")
    fill(other, 5)
    with pytest.raises(ValueError, match=f"holds keys of {tmp_path}/source under the same names"):
        list(encode(replace(job, source=other), load_toy))


def test_two_sources_with_different_keys_share_an_archive(job: EncodeJob, tmp_path: Path) -> None:
    keys = fill(job.source, 5)
    run(job)
    other = locate(f"{tmp_path}/other")
    keys += fill(other, 0, {"z/1.png": png()})
    events, _ = run(replace(job, source=other))
    assert planned(events).changes.deleted == 0
    check_complete(job.archive, keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reads_caption": True}, "captions 'none'"),
        ({"captions": "table"}, "expected both or neither"),
        ({"shard_records": 0}, "1 or more"),
        ({"workers": -1}, "-1 workers"),
    ],
)
def test_jobs_that_cannot_be_are_refused(job: EncodeJob, change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        list(encode(replace(job, **change), load_toy))  # type: ignore[arg-type]


def test_captions_of_a_table_and_digests_reach_the_rows(job: EncodeJob, tmp_path: Path) -> None:
    keys = fill(job.source, 4)
    pq.write_table(
        pa.table({"key": keys[:3], "caption": ["one", None, "drei ü"]}), tmp_path / "captions.parquet"
    )
    table = locate(f"{tmp_path}/captions.parquet")
    run(replace(job, captions="table", caption_table=table, digest=True))
    assert rows(job.archive)["caption"].to_pylist() == ["one", None, "drei ü", None]
    (part,) = Archive(job.archive).parts.values()
    digests = pq.read_table(f"{job.archive.url}/images/{part.path}")["digest"].to_pylist()
    assert [len(digest) for digest in digests] == [16] * 4


def test_a_dry_run_writes_nothing_and_comes_close(job: EncodeJob, tmp_path: Path) -> None:
    fill(job.source, 200, {"a/bad.png": b"?"})
    found = estimate(job, load_toy)
    assert not (tmp_path / "archive").exists()
    assert (found.images, found.sample_images, found.changes.new) == (201, 16, 201)
    assert found.bpp == pytest.approx(8 * 3 / 48)
    run(job)
    added = sum(part.size for part in Archive(job.archive).parts.values())
    assert found.archive_bytes == pytest.approx(201 * 15, rel=0.02)
    assert found.archive_bytes < added  # small parts have large footers
    assert estimate(job, load_toy).images == 0


def test_encode_works_in_a_thread_that_hears_no_signals(job: EncodeJob) -> None:
    keys = fill(job.source, 5)
    thread = threading.Thread(target=lambda: list(encode(job, load_toy)))
    thread.start()
    thread.join()
    check_complete(job.archive, keys)


def test_ray_workers_bisect_to_the_image_that_kills_them(job: EncodeJob, ray_cluster: str) -> None:
    keys = fill(job.source, 70, {**BAD, "b/kills.png": png(KILLS)})
    _, finished = run(replace(job, workers=2, shard_records=40))
    check_complete(job.archive, keys)
    assert (finished.images, finished.failures) == (70, 6)
    found = failures(job.archive)
    assert re.match(r"crashes the worker: .", found["b/kills.png"])
    assert found["c/raises.png"].startswith("crashes the worker: RuntimeError: a bug in the codec")
    assert run(replace(job, workers=2))[1].images == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bucket_becomes_an_archive_in_another(s3: S3Server, ray_cluster: str, workers: int) -> None:
    job = EncodeJob(s3.location("photos"), s3.location("a/b"), SPEC, workers=workers, shard_records=32)
    keys = fill(job.source, 50, BAD)
    run(job)
    check_complete(job.archive, keys)
    assert sorted(failures(job.archive)) == sorted(BAD)
    store = connect(job.source)
    store.write("a/image0000.png", store.read("a/image0000.png"))  # a new time, the same ETag
    store.write("a/image0003.png", png(number=99))
    store.delete("b/image0001.png")
    events, finished = run(replace(job, workers=0))
    changes = planned(events).changes
    assert (changes.new, changes.changed, changes.deleted, changes.unchanged) == (0, 1, 1, 53)
    assert finished.images == 1
    check_complete(job.archive, keys)


def test_a_damaged_summary_of_an_old_run_does_not_stand_in_the_way(job: EncodeJob) -> None:
    keys = fill(job.source, 2)
    run(job)
    archive = Archive(job.archive)
    (summary,) = archive.runs().values()
    assert summary is not None
    vouched = archive.summary(summary).objects
    archive.store.write(summary, archive.store.read(summary).replace(b"images", b"imagez"))
    connect(job.source).write("d/new.png", png(number=9))
    _, finished = run(job)
    check_complete(job.archive, [*keys, "d/new.png"])
    later = Archive(job.archive).runs()[finished.runs[0]]
    assert later is not None
    assert vouched.items() <= Archive(job.archive).summary(later).objects.items()
    assert run(job)[1].runs == ()


def test_a_damaged_log_is_one_line_that_names_verify(job: EncodeJob) -> None:
    fill(job.source, 2)
    run(job)
    store = connect(job.archive)
    last = max(entry.path for entry in store.list("images/_delta_log") if entry.path.endswith(".json"))
    store.write(last, b'{"garbage')
    for attempt in (lambda: run(job), lambda: estimate(job, load_toy)):
        with pytest.raises(ValueError, match=r"the log of .* cannot be read .*archiver verify"):
            attempt()
