"""A preset and pictures -> its archive of them, and what that gives back, each made in another process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from archiver.evaluation.gather import first_of
from archiver.evaluation.job import EvaluationJob
from archiver.evaluation.process import Decoded, Task, Timing, decode_in_process, encode_in_process
from archiver.evaluation.results import ArchiveBytes, CodecResult, PatchDistance, PictureResult, Speed
from archiver.presets import Preset
from manifests.storage import connect, locate


@dataclass(frozen=True)
class Outcome:
    """A preset's archive, decoded."""

    preset: Preset
    task: Task  # of decoding: what could be encoded
    failed: Mapping[str, str]  # key -> why
    decoded: Mapping[str, Decoded]
    archive: ArchiveBytes
    encode: Timing
    decode: Timing

    def to_json(self) -> bytes:
        """All but the preset."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "preset"}).encode()

    @staticmethod
    def from_json(preset: Preset, content: bytes) -> "Outcome":
        found = json.loads(content)
        return Outcome(
            preset,
            Task(**{**found["task"], "keys": tuple(found["task"]["keys"])}),
            found["failed"],
            {key: Decoded(**one) for key, one in found["decoded"].items()},
            ArchiveBytes(**found["archive"]),
            Timing(**found["encode"]),
            Timing(**found["decode"]),
        )

    def result(self, pictures: tuple[PictureResult, ...], distance: PatchDistance | None) -> CodecResult:
        preset = self.preset
        return CodecResult(
            preset.name,
            preset.spec.name,
            preset.summary,
            pictures,
            self.archive,
            _speed(self.encode),
            _speed(self.decode),
            distance,
        )


def _speed(timing: Timing) -> Speed:
    return Speed(timing.pixels / 1e6 / max(timing.seconds, 1e-9), timing.peak_bytes)


def through_archive(job: EvaluationJob, preset: Preset, keys: list[str]) -> Outcome:
    archive, output = job.work / "archives" / preset.name, job.work / "decoded" / preset.name
    known = output / "outcome.json"
    if known.exists():
        return Outcome.from_json(preset, known.read_bytes())
    output.mkdir(parents=True, exist_ok=True)
    task = Task(
        preset.name, str(job.work / "source"), str(archive), str(output), tuple(keys),
        preset.spec.to_json().decode(), job.captions if preset.reads_caption else "none",
    )  # fmt: skip
    failed, encode = encode_in_process(task)
    if encode is None:
        raise ValueError(f"{preset.name} could encode none of the pictures; {first_of(failed)}")
    task = replace(task, keys=tuple(key for key in keys if key not in failed))
    decoded, decode = decode_in_process(task)
    objects = list(connect(locate(str(archive))).list())
    archive_bytes = ArchiveBytes(
        pixels=sum(one.height * one.width for one in decoded),
        total=sum(entry.size for entry in objects),
        bitstreams=sum(one.bitstream_bytes for one in decoded),
        weights=sum(entry.size for entry in objects if entry.path.startswith("weights/")),
    )
    outcome = Outcome(preset, task, failed, {one.key: one for one in decoded}, archive_bytes, encode, decode)
    connect(locate(str(output))).write(known.name, outcome.to_json())  # whole or not at all
    return outcome
