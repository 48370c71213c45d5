"""A source and presets -> an `Evaluation`: each preset through a real archive, conventional codecs at its bytes."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from archiver.evaluation.artefacts import artefacts
from archiver.evaluation.baselines import Conventional, Matcher, Name, conventional
from archiver.evaluation.frechet import PATCH, PatchFeatures, patch_count, patch_distance
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
from pipelines.listing import Selection, check_apart, list_source

SHOWN = 8  # pictures of the report
SIDECARS = (".txt", ".json")
BEGUN = "evaluation.json"  # in the work folder: what it is of


@dataclass(frozen=True)
class EvaluationJob:
    """What to measure."""

    source: Location
    presets: tuple[Preset, ...]
    baselines: tuple[Name, ...]
    # A new folder for copies of the pictures, archives and reconstructions, or that of the same job, broken off: what
    # had been encoded and decoded there is not done again. It remains.
    work: Path
    inception: Path | None = None  # weights of FID's Inception
    limit: int | None = None  # pictures, evenly spaced in the order of their keys
    shown: int = SHOWN
    captions: str = "sidecar"  # where presets that read captions get them from; or "tags"

    def check(self) -> None:
        """ValueError where it makes no sense."""
        names = [preset.name for preset in self.presets]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"codecs {names}, expected one or more, each once")
        if len(set(self.baselines)) != len(self.baselines):
            raise ValueError(f"baselines {list(self.baselines)}, expected each once")
        check_apart(self.source, locate(str(self.work)))
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit}, expected 1 or more")
        for name in self.baselines:
            conventional(name)
        if self.inception is not None:
            from archiver.evaluation.inception import check_inception

            check_inception(self.inception)
        if self.work.exists() and any(self.work.iterdir()):
            begun = self.work / BEGUN
            if not begun.is_file() or begun.read_bytes() != self.facts():
                raise ValueError(
                    f"{self.work} holds something else, expected a new folder, or this evaluation's"
                )

    def facts(self) -> bytes:
        """What archives and reconstructions follow from."""
        specs = {preset.name: preset.spec.to_json().decode() for preset in self.presets}
        told = {"source": str(self.source), "limit": self.limit, "captions": self.captions, "codecs": specs}
        return json.dumps(told, indent=1).encode()


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
    job.work.mkdir(parents=True, exist_ok=True)
    (job.work / BEGUN).write_bytes(job.facts())
    yield Progress("reading", 0, 1)
    keys, left_out = _gather(job)
    failed = {key for key, why in left_out.items() if why.fails}
    reasons = {key: why.text for key, why in left_out.items()}
    outcomes: list[_Outcome] = []
    for number, preset in enumerate(job.presets):
        yield Progress(f"coding with {preset.name}", number, len(job.presets))
        outcome = _through_archive(job, preset, keys)
        outcomes.append(outcome)
        failed |= outcome.failed.keys()
        reasons |= {key: f"{preset.name}: {why}" for key, why in outcome.failed.items()}
    keys = [key for key in keys if key not in failed]
    if not keys:
        raise ValueError(f"{job.source}: no picture that all presets could encode; {_first(reasons)}")
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
        judge.judge(original, key, outcomes, found, sheet)
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
        left_out=reasons,
        failed=tuple(sorted(failed)),
        codecs=tuple(
            outcome.result(tuple(found.codecs[outcome.preset.name]), distances.get(outcome.preset.name))
            for outcome in outcomes
        ),
        matched=tuple(MatchedResult(*names, tuple(several)) for names, several in found.matched.items()),
        shown=tuple(found.shown),
    )


@dataclass(frozen=True)
class _LeftOut:
    """Why a picture cannot take part."""

    text: str
    fails: bool  # it cannot be read, rather than judged


def _gather(job: EvaluationJob) -> tuple[list[str], Mapping[str, _LeftOut]]:
    """Copies the pictures that take part, with their sidecars, to the work folder; and says why others do not.

    Where one cannot, of those of a `limit`, the next in order takes its place.
    """
    source, copies = connect(job.source), connect(locate(str(job.work / "source")))
    images = list_source(job.source, Selection()).rows["key"].to_pylist()
    count = min(len(images), job.limit or len(images))
    edges = [place * len(images) // count for place in range(count)] + [len(images)] if count else [0]
    keys: list[str] = []
    left_out: dict[str, _LeftOut] = {}
    patches = 0
    for first, end in pairwise(edges):
        for key in images[first:end]:
            found = _copied(source, copies, key)
            if not isinstance(found, _LeftOut):
                keys.append(key)
                patches += patch_count(*found)
                break
            left_out[key] = found
    if not keys:
        reasons = {key: why.text for key, why in left_out.items()}
        raise ValueError(f"{job.source}: none of {len(images):,} images can be judged; {_first(reasons)}")
    if job.inception is not None and patches < 2:
        raise ValueError(
            f"{job.source}: {patches} patches of {PATCH} x {PATCH} pixels, FID and KID want many"
        )
    return keys, left_out


def _first(reasons: Mapping[str, str]) -> str:
    """Example: "a.png: damaged image, and 3 more"."""
    return next((f"{key}: {why}" for key, why in reasons.items()), "") + (
        f", and {len(reasons) - 1:,} more" if len(reasons) > 1 else ""
    )


def _copied(source: Store, copies: Store, key: str) -> tuple[int, int] | _LeftOut:
    """Height and width of the picture."""
    content = source.read(key)
    try:
        height, width = read_image(content).pixels_hwc.shape[:2]
    except UnreadableImage as error:
        return _LeftOut(str(error), True)
    if min(height, width) < SHORTEST_SIDE:
        return _LeftOut(f"{width} x {height} pixels, MS-SSIM wants {SHORTEST_SIDE} a side", False)
    _put(copies, key, content)
    for suffix in SIDECARS:
        sidecar = os.path.splitext(key)[0] + suffix
        if source.exists(sidecar):
            _put(copies, sidecar, source.read(sidecar))
    return height, width


def _put(copies: Store, key: str, content: bytes) -> None:
    """One that is there stays as old as it is: an archive that has it would take it for another."""
    if not copies.exists(key) or copies.read(key) != content:
        copies.write(key, content)


@dataclass(frozen=True)
class _Outcome:
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
    def from_json(preset: Preset, content: bytes) -> "_Outcome":
        found = json.loads(content)
        return _Outcome(
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


def _through_archive(job: EvaluationJob, preset: Preset, keys: list[str]) -> _Outcome:
    archive, output = job.work / "archives" / preset.name, job.work / "decoded" / preset.name
    known = output / "outcome.json"
    if known.exists():
        return _Outcome.from_json(preset, known.read_bytes())
    output.mkdir(parents=True, exist_ok=True)
    task = Task(
        preset.name, str(job.work / "source"), str(archive), str(output), tuple(keys),
        preset.spec.to_json().decode(), job.captions if preset.reads_caption else "none",
    )  # fmt: skip
    failed, encode = encode_in_process(task)
    if encode is None:
        raise ValueError(f"{preset.name} could encode none of the pictures; {_first(failed)}")
    task = replace(task, keys=tuple(key for key in keys if key not in failed))
    decoded, decode = decode_in_process(task)
    objects = list(connect(locate(str(archive))).list())
    archive_bytes = ArchiveBytes(
        pixels=sum(one.height * one.width for one in decoded),
        total=sum(entry.size for entry in objects),
        bitstreams=sum(one.bitstream_bytes for one in decoded),
        weights=sum(entry.size for entry in objects if entry.path.startswith("weights/")),
    )
    outcome = _Outcome(preset, task, failed, {one.key: one for one in decoded}, archive_bytes, encode, decode)
    connect(locate(str(output))).write(known.name, outcome.to_json())  # whole or not at all
    return outcome


def _patch_distances(
    job: EvaluationJob, keys: list[str], outcomes: list[_Outcome]
) -> Mapping[str, PatchDistance]:
    """Preset -> FID and KID, where Inception's weights were given."""
    if job.inception is None:
        return {}
    from archiver.evaluation.inception import load_features

    features = load_features(job.inception)
    originals = PatchFeatures(features)
    decoded = {outcome.preset.name: PatchFeatures(features) for outcome in outcomes}
    for key in keys:
        originals.add(read_image((job.work / "source" / key).read_bytes()).pixels_hwc)
        for outcome in outcomes:
            decoded[outcome.preset.name].add(read_decoded(outcome.task, key))
    wanted = originals.all()
    return {name: patch_distance(wanted, found.all()) for name, found in decoded.items()}


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
        outcomes: list[_Outcome],
        found: _Found,
        sheet: Sheet | None,
    ) -> None:
        matcher = Matcher(original, self._distance)
        for outcome in outcomes:
            name = outcome.preset.name
            decoded_hwc = read_decoded(outcome.task, key)
            coded = outcome.decoded[key]
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
