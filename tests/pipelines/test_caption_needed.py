"""A codec that decodes from captions never draws a picture from none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.archive import Archive
from manifests.storage import locate
from pipelines.codec import Pixels
from pipelines.decode import NO_CAPTION, Restored
from pipelines.encode import EncodeJob, encode
from pipelines.restore import Finished, Lost, RestoreJob, Written, restore, restore_rows
from pipelines.verify import Finding, verify
from tests.sources import failures, fill, rows
from tests.toy_codec import READING_SPEC, SPEC, load_toy

FAILED = "no caption: the codec decodes from it"


@pytest.fixture
def job(tmp_path: Path) -> EncodeJob:
    """Three images that have a caption, one that has none, one whose caption is blank, one whose caption is broken."""
    (tmp_path / "source").mkdir()
    source = locate(f"{tmp_path}/source")
    texts = {f"{'abc'[n]}/image{n:04d}.txt": f"caption {n}".encode() for n in range(3)}
    fill(source, 6, texts | {"b/image0004.txt": b" \n", "c/image0005.json": b"{"})
    return EncodeJob(
        source, locate(f"{tmp_path}/archive"), READING_SPEC, captions="sidecar", reads_caption=True
    )


def captions(archive: Archive) -> dict[str, str | None]:
    found = rows(archive.location)
    return dict(zip(found["key"].to_pylist(), found["caption"].to_pylist(), strict=True))


def test_an_image_without_one_is_a_failure_that_says_so(job: EncodeJob) -> None:
    list(encode(job, load_toy))
    missing = ["a/image0003.png", "b/image0004.png", "c/image0005.png"]
    assert failures(job.archive) == dict.fromkeys(missing, FAILED)
    list(encode(replace(job, archive=locate(f"{job.archive.url}-other"), spec=SPEC), load_toy))
    assert failures(locate(f"{job.archive.url}-other")) == {}  # a codec that reads none takes all


class _Silent:
    """A captioner that has something to say about one picture in two."""

    batch = 3

    def captions(self, pictures: Sequence[Pixels]) -> list[str]:
        return ["a photograph" if place % 2 else "" for place, _ in enumerate(pictures)]


def _silent(setting: str, device: str) -> _Silent:
    return _Silent()


def test_nor_is_an_empty_caption_of_a_captioner_one(job: EncodeJob) -> None:
    list(encode(replace(job, captions="silent", load_captioner=_silent), load_toy))
    found = rows(job.archive)
    failed = [failure is not None for failure in found["failure"].to_pylist()]
    assert failed == [caption is None for caption in found["caption"].to_pylist()]
    assert 0 < sum(failed) < len(failed)


def test_a_record_whose_caption_is_damaged_is_lost_by_name(job: EncodeJob, tmp_path: Path) -> None:
    list(encode(job, load_toy))
    archive = Archive(job.archive)
    good = [key for key, caption in captions(archive).items() if caption is not None]
    before = {
        one.key: one.pixels_hwc
        for one in restore_rows(archive, good, load_toy, tmp_path, "cpu")
        if isinstance(one, Restored)
    }
    assert sorted(before) == sorted(good)
    (part,) = archive.parts.values()
    content = bytearray(archive.store.read(f"images/{part.path}"))
    column = pq.read_metadata(f"{job.archive.url}/images/{part.path}").row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size - 5] ^= 4
    archive.store.write(f"images/{part.path}", bytes(content))

    events = list(
        restore(RestoreJob(job.archive, locate(f"{tmp_path}/out"), keys=tuple(good)), load_toy, tmp_path)
    )
    assert [event for event in events if isinstance(event, Written)] == []
    assert {event.key: event.why for event in events if isinstance(event, Lost)} == dict.fromkeys(
        good, NO_CAPTION
    )
    assert isinstance(events[-1], Finished)
    assert not list(Path(tmp_path, "out").glob("**/*.png"))
    findings = [found for found in verify(job.archive, 1.0, load_toy, tmp_path) if isinstance(found, Finding)]
    assert {found.name for found in findings if found.kind == "undecodable"} == set(good)
