"""How the worker has captions written: by a toy captioner that tells a picture by its colour."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from manifests.plan import Shard
from manifests.records import Record
from manifests.storage import locate
from pipelines.captions import Captioner
from pipelines.codec import Pixels
from pipelines.encode import EncodeJob, Finished, encode
from pipelines.worker import Encoder, EncodeTask, PlannedImage, setup_of
from tests.sources import fill, png, rows
from tests.toy_codec import REFUSED, SPEC, load_toy


@dataclass
class ToyCaptioner:
    """A `Captioner` that says what it was loaded as, and which picture it saw."""

    setting: str
    batch: int = 3
    batches: list[int] = field(default_factory=list)

    def captions(self, pictures: Sequence[Pixels]) -> list[str]:
        self.batches.append(len(pictures))
        return [f"{self.setting} {int(pixels_hwc[3, 3, 0])}" for pixels_hwc in pictures]


def load_toy_captioner(captions: str, device: str) -> Captioner:
    if captions == "missing":
        raise OSError("no captioner of that name")
    return ToyCaptioner(captions)


@pytest.fixture
def job(tmp_path: Path) -> EncodeJob:
    for name in ("source", "archive"):
        (tmp_path / name).mkdir()
    source, archive = locate(f"{tmp_path}/source"), locate(f"{tmp_path}/archive")
    return EncodeJob(source, archive, SPEC, captions="toy", load_captioner=load_toy_captioner)


def task_of(keys: list[str], captions: str) -> EncodeTask:
    images = tuple(PlannedImage(row, key, 100, 0, None) for row, key in enumerate(keys))
    return EncodeTask(Shard("run", 0, len(keys) - 1), images, SPEC.id, captions, False)


def captions_of(records: list[Record]) -> dict[str, str | None]:
    return {record.key: record.image.caption for record in records if record.image is not None}


def test_each_image_gets_the_caption_of_its_own_pixels(job: EncodeJob) -> None:
    fill(job.source, 11, {"b/bad.png": b"x", "b/refused.png": png(REFUSED, 77)})
    (finished,) = [event for event in encode(job, load_toy) if isinstance(event, Finished)]
    assert (finished.images, finished.failures) == (11, 2)
    told = {row["key"]: row["caption"] for row in rows(job.archive).to_pylist() if row["failure"] is None}
    assert told == {f"{'abc'[n % 3]}/image{n:04d}.png": f"toy {n}" for n in range(11)}


def test_a_captioner_is_loaded_once_and_handed_full_batches(job: EncodeJob) -> None:
    loaded: list[ToyCaptioner] = []

    def load(captions: str, device: str) -> Captioner:
        loaded.append(ToyCaptioner(captions))
        return loaded[-1]

    encoder = Encoder(setup_of(replace(job, load_captioner=load), load_toy), "cpu")
    assert not loaded  # until a task needs it
    keys = fill(job.source, 10)
    for _ in range(2):
        assert len(captions_of(list(encoder.records(task_of(keys, "toy"))))) == 10
    assert [captioner.setting for captioner in loaded] == ["toy"]
    assert max(loaded[0].batches) == 3
    assert sum(loaded[0].batches) == 20


def test_a_captioner_goes_when_a_task_needs_none_or_another(job: EncodeJob) -> None:
    encoder = Encoder(setup_of(job, load_toy), "cpu")
    keys = fill(job.source, 1)
    for setting, said in (("one", "one 0"), ("two", "two 0"), ("none", None), ("one", "one 0")):
        assert list(captions_of(list(encoder.records(task_of(keys, setting)))).values()) == [said]
        assert (encoder._captioner.last is None) == (said is None)


def test_a_codec_that_decodes_from_captions_takes_written_ones(job: EncodeJob) -> None:
    fill(job.source, 3)
    (finished,) = (
        event for event in encode(replace(job, reads_caption=True), load_toy) if isinstance(event, Finished)
    )
    assert (finished.images, finished.failures) == (3, 0)


def test_a_captioner_that_is_missing_ends_the_run_and_blames_no_image(job: EncodeJob) -> None:
    fill(job.source, 3)
    with pytest.raises(OSError, match="no captioner of that name"):
        list(encode(replace(job, captions="missing"), load_toy))


def test_without_a_captioner_a_setting_of_one_ends_the_run(job: EncodeJob) -> None:
    fill(job.source, 3)
    with pytest.raises(OSError, match="captions 'poem', expected one of none, sidecar, table"):
        list(encode(EncodeJob(job.source, job.archive, SPEC, captions="poem"), load_toy))
