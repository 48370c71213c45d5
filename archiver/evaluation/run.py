"""A source and presets -> an `Evaluation`: each preset through a real archive, conventional codecs at its bytes."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from archiver.evaluation.artefacts import artefacts
from archiver.evaluation.baselines import Conventional, Matcher, Name, conventional
from archiver.evaluation.metrics import SHORTEST_SIDE, Measure, load_lpips_alex, load_measure
from archiver.evaluation.process import (
    Decoded,
    Task,
    Timing,
    decode_in_process,
    encode_in_process,
    read_decoded,
)
from archiver.evaluation.results import (
    ArchiveBytes,
    CodecResult,
    Evaluation,
    MatchedPicture,
    MatchedResult,
    PatchDistance,
    PictureResult,
    Shown,
    Speed,
)
from archiver.evaluation.shown import Sheet, caption, setting
from archiver.presets import Preset
from manifests.storage import Location, Store, connect, locate
from pipelines.codec import Pixels
from pipelines.images import UnreadableImage, read_image
from pipelines.listing import Selection, list_source

SHOWN = 8  # pictures of the report
SIDECARS = (".txt", ".json")


@dataclass(frozen=True)
class EvaluationJob:
    """What to measure."""

    source: Location
    presets: tuple[Preset, ...]
    baselines: tuple[Name, ...]
    work: Path  # an empty folder for copies of the pictures, archives and reconstructions; remains
    inception: Path | None = None  # weights of FID's Inception
    limit: int | None = None  # pictures, evenly spaced in the order of their keys
    shown: int = SHOWN
    captions: str = "sidecar"  # where presets that read captions get them from; or "tags"

    def check(self) -> None:
        """ValueError where it makes no sense."""
        names = [preset.name for preset in self.presets]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"codecs {names}, expected one or more, each once")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit}, expected 1 or more")
        for name in self.baselines:
            conventional(name)
        if self.inception is not None:
            from archiver.evaluation.inception import check_inception

            check_inception(self.inception)
        if self.work.exists() and any(self.work.iterdir()):
            raise ValueError(f"{self.work} is not empty, expected a new folder")


@dataclass(frozen=True)
class Progress:
    """How far it has come."""

    phase: str
    done: int
    total: int


def evaluate(job: EvaluationJob) -> Iterator[Progress | Evaluation]:
    """Progress, then the result."""
    job.check()
    measure = load_measure()
    keys, left_out = _gather(job)
    outcomes: list[_Outcome] = []
    for number, preset in enumerate(job.presets):
        yield Progress(f"encoding and decoding with {preset.name}", number, len(job.presets))
        outcomes.append(_through_archive(job, preset, keys))
    found = _Found(
        {preset.name: [] for preset in job.presets},
        {(name, preset.name): [] for preset in job.presets for name in job.baselines},
    )
    shown_every = max(1, -(-len(keys) // job.shown)) if job.shown else len(keys) + 1
    judge = _Judge(measure, tuple(conventional(name) for name in job.baselines))
    for number, key in enumerate(keys):
        yield Progress("measuring", number, len(keys))
        original = read_image((job.work / "source" / key).read_bytes()).pixels_hwc
        found.pixels += original.shape[0] * original.shape[1]
        sheet = Sheet(original) if job.shown and number % shown_every == 0 else None
        judge.judge(original, key, number, outcomes, found, sheet)
        if sheet is not None:
            found.shown.append(sheet.shown(key))
    yield Progress("measuring", len(keys), len(keys))
    distances = _patch_distances(job, keys, outcomes)
    yield Evaluation(
        source=str(job.source),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=_machine(),
        pictures=tuple(keys),
        pixels=found.pixels,
        left_out=left_out,
        codecs=tuple(
            outcome.result(tuple(found.codecs[outcome.preset.name]), distances.get(outcome.preset.name))
            for outcome in outcomes
        ),
        matched=tuple(MatchedResult(*names, tuple(several)) for names, several in found.matched.items()),
        shown=tuple(found.shown),
    )


def _gather(job: EvaluationJob) -> tuple[list[str], Mapping[str, str]]:
    """Copies the pictures that take part, with their sidecars, to the work folder; and says why others do not."""
    source = connect(job.source)
    job.work.mkdir(parents=True, exist_ok=True)
    copies = connect(locate(str(job.work / "source")))
    images = list_source(job.source, Selection()).rows["key"].to_pylist()
    step = 1 if job.limit is None else max(1, len(images) / job.limit)
    chosen = [images[int(place * step)] for place in range(min(len(images), job.limit or len(images)))]
    keys, left_out = [], {}
    for key in chosen:
        why = _copied(source, copies, key)
        if why is None:
            keys.append(key)
        else:
            left_out[key] = why
    if not keys:
        raise ValueError(
            f"{job.source}: no picture of {SHORTEST_SIDE} pixels a side or more, of {len(chosen)} images"
        )
    return keys, left_out


def _copied(source: Store, copies: Store, key: str) -> str | None:
    """None, or why the picture cannot take part."""
    content = source.read(key)
    try:
        height, width = read_image(content).pixels_hwc.shape[:2]
    except UnreadableImage as error:
        return str(error)
    if min(height, width) < SHORTEST_SIDE:
        return f"{width} x {height} pixels, MS-SSIM wants {SHORTEST_SIDE} a side"
    copies.write(key, content)
    for suffix in SIDECARS:
        sidecar = os.path.splitext(key)[0] + suffix
        if source.exists(sidecar):
            copies.write(sidecar, source.read(sidecar))
    return None


@dataclass(frozen=True)
class _Outcome:
    """A preset's archive, decoded."""

    preset: Preset
    task: Task
    decoded: list[Decoded]
    archive: ArchiveBytes
    encode: Timing
    decode: Timing

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


def _through_archive(job: EvaluationJob, preset: Preset, keys: list[str]) -> _Outcome:
    archive, output = job.work / "archives" / preset.name, job.work / "decoded" / preset.name
    output.mkdir(parents=True)
    task = Task(
        str(job.work / "source"), str(archive), str(output), tuple(keys), preset.spec.to_json().decode(),
        job.captions if preset.reads_caption else "none",
    )  # fmt: skip
    encode = encode_in_process(task)
    decoded, decode = decode_in_process(task)
    objects = list(connect(locate(str(archive))).list())
    archive_bytes = ArchiveBytes(
        total=sum(entry.size for entry in objects),
        bitstreams=sum(one.bitstream_bytes for one in decoded),
        weights=sum(entry.size for entry in objects if entry.path.startswith("weights/")),
    )
    return _Outcome(preset, task, decoded, archive_bytes, encode, decode)


def _patch_distances(
    job: EvaluationJob, keys: list[str], outcomes: list[_Outcome]
) -> Mapping[str, PatchDistance]:
    """Preset -> FID and KID, where Inception's weights were given."""
    if job.inception is None:
        return {}
    from archiver.evaluation.frechet import PatchFeatures, patch_distance
    from archiver.evaluation.inception import load_features

    features = load_features(job.inception)
    originals = PatchFeatures(features)
    decoded = {outcome.preset.name: PatchFeatures(features) for outcome in outcomes}
    for number, key in enumerate(keys):
        originals.add(read_image((job.work / "source" / key).read_bytes()).pixels_hwc)
        for outcome in outcomes:
            decoded[outcome.preset.name].add(read_decoded(outcome.task, number))
    return {name: patch_distance(originals.all(), found.all()) for name, found in decoded.items()}


@dataclass
class _Found:
    """What the pictures so far gave."""

    codecs: dict[str, list[PictureResult]]
    matched: dict[tuple[Name, str], list[MatchedPicture]]
    shown: list[Shown] = field(default_factory=list)
    pixels: int = 0


class _Judge:
    """Measures all reconstructions of one original in a row: the networks keep its features."""

    def __init__(self, measure: Measure, baselines: tuple[Conventional, ...]) -> None:
        self._measure, self._baselines = measure, baselines
        self._distance = load_lpips_alex()

    def judge(
        self,
        original: Pixels,
        key: str,
        number: int,
        outcomes: list[_Outcome],
        found: _Found,
        sheet: Sheet | None,
    ) -> None:
        matcher = Matcher(original, self._distance)
        for outcome in outcomes:
            name = outcome.preset.name
            decoded_hwc = read_decoded(outcome.task, number)
            coded = outcome.decoded[number]
            result = self._result(key, original, decoded_hwc, coded.bitstream_bytes + coded.caption_bytes)
            found.codecs[name].append(result)
            if sheet is not None:
                sheet.add(name, decoded_hwc, caption(name, result))
            for baseline in self._baselines:
                match = matcher.match(baseline, result.bytes)
                theirs = self._result(key, original, match.decoded_hwc, match.bytes)
                found.matched[baseline.name, name].append(
                    MatchedPicture(theirs, match.scale, match.quality, match.over)
                )
                if sheet is not None:
                    sheet.add(
                        f"{baseline.name} at {name}", match.decoded_hwc, caption(setting(match), theirs)
                    )

    def _result(self, key: str, original: Pixels, decoded_hwc: Pixels, size_bytes: int) -> PictureResult:
        height, width = original.shape[:2]
        scores = self._measure(original, decoded_hwc)
        return PictureResult(key, height, width, size_bytes, scores, artefacts(original, decoded_hwc))


def _machine() -> str:
    """Example: "AMD EPYC 7B13, 2 of 2 cores, Python 3.11.9, Linux"."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
