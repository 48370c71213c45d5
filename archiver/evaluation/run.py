"""A source and presets -> an `Evaluation`: each preset through a real archive, conventional codecs at its bytes."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from archiver.evaluation.artefacts import artefacts
from archiver.evaluation.baselines import Conventional, Matcher, Name, conventional
from archiver.evaluation.coding import Outcome, through_archive
from archiver.evaluation.frechet import PatchFeatures, patch_distance
from archiver.evaluation.gather import first_of, gather
from archiver.evaluation.job import BEGUN, EvaluationJob
from archiver.evaluation.metrics import Measure, load_lpips_alex, load_measure
from archiver.evaluation.process import read_decoded
from archiver.evaluation.results import (
    Evaluation,
    MatchedPicture,
    MatchedResult,
    PatchDistance,
    PictureResult,
    Shown,
)
from archiver.evaluation.shown import Sheet, caption, setting
from pipelines.codec import Pixels
from pipelines.images import read_image


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
    keys, left_out = gather(job)
    failed = {key for key, why in left_out.items() if why.fails}
    reasons = {key: why.text for key, why in left_out.items()}
    outcomes: list[Outcome] = []
    for number, preset in enumerate(job.presets):
        yield Progress(f"coding with {preset.name}", number, len(job.presets))
        outcome = through_archive(job, preset, keys)
        outcomes.append(outcome)
        failed |= outcome.failed.keys()
        reasons |= {key: f"{preset.name}: {why}" for key, why in outcome.failed.items()}
    keys = [key for key in keys if key not in failed]
    if not keys:
        raise ValueError(f"{job.source}: no picture that all presets could encode; {first_of(reasons)}")
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


def _patch_distances(
    job: EvaluationJob, keys: list[str], outcomes: list[Outcome]
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
        outcomes: list[Outcome],
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
