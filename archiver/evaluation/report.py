"""An `Evaluation` -> its curves, BD-rates and duels, and all of it as one JSON document."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Literal

from archiver.evaluation.artefacts import LIMITS, exceeded
from archiver.evaluation.baselines import TITLES, TOLERANCE
from archiver.evaluation.bdrate import BDRate, bd_rate
from archiver.evaluation.metrics import METRICS, Metric, Scores
from archiver.evaluation.published import BACKBONE, KODAK, Published, published_for
from archiver.evaluation.results import (
    CodecResult,
    Duel,
    Evaluation,
    MatchedResult,
    PictureResult,
    Sums,
    duel,
)

Kind = Literal["codec", "conventional", "published"]
Json = Mapping[str, object]
DUEL_METRICS = tuple(metric for metric in METRICS if metric.name in ("lpips_alex", "dists"))


@dataclass(frozen=True)
class Curve:
    """Means over the pictures at several rates, in ascending order of rate; a metric may be missing."""

    name: str
    kind: Kind
    bpp: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]  # by metric
    points: tuple[str, ...]  # what each point is called


@dataclass(frozen=True)
class Comparison:
    """The BD-rate of one curve against an anchor by one metric, or why there is none."""

    curve: str
    anchor: str
    anchor_kind: Kind
    metric: Metric
    rate: BDRate | None
    why: str | None


def curves_of(evaluation: Evaluation) -> list[Curve]:
    """Series of presets, conventional codecs (a point where a preset's bytes were matched), published ones."""
    several: dict[str, list[CodecResult]] = {}
    for codec in evaluation.codecs:
        several.setdefault(series_of(codec.preset), []).append(codec)
    curves = [
        _curve(series, "codec", [(codec.preset, codec.sums) for codec in codecs])
        for series, codecs in several.items()
    ]
    conventional: dict[str, list[tuple[str, Sums]]] = {}
    for matched in evaluation.matched:
        if 2 * matched.over <= len(matched.pictures):  # else mostly larger files than asked for
            conventional.setdefault(matched.name, []).append((f"at {matched.preset}", matched.sums))
    curves += [
        _curve(_title(name), "conventional", conventional[name]) for name in TITLES if name in conventional
    ]
    return curves + [_published_curve(published) for published in published_in(evaluation)]


def series_of(preset: str) -> str:
    """A preset's name without its rate.

    Example: "layered-0.06-slow" -> "layered-slow"; "perco-tiny-0.009" -> "perco-tiny"
    """
    return re.sub(r"-\d+(\.\d+)?(?=-|$)", "", preset)


def published_in(evaluation: Evaluation) -> tuple[Published, ...]:
    sizes = {(picture.width, picture.height) for codec in evaluation.codecs for picture in codec.pictures}
    return published_for([PurePosixPath(key).stem for key in evaluation.pictures], sizes)


def published_note(evaluation: Evaluation) -> str | None:
    """What to know about the published curves beside these pictures."""
    if not published_in(evaluation):
        return None
    count = len(evaluation.pictures)
    part = (
        ""
        if count == len(KODAK)
        else f"; measured here: {count} of the {len(KODAK)} pictures, so compare with care"
    )
    return f"Published, not measured here: means over the 24 Kodak pictures, LPIPS with {BACKBONE}{part}."


def _title(name: str) -> str:
    return f"{TITLES[name]}, best of sizes"  # type: ignore[index]


def _curve(name: str, kind: Kind, named: list[tuple[str, Sums]]) -> Curve:
    ordered = sorted(named, key=lambda pair: pair[1].bpp_mean)
    sums = [one for _, one in ordered]
    return Curve(
        name,
        kind,
        tuple(one.bpp_mean for one in sums),
        {metric.name: tuple(one.scores.of(metric) for one in sums) for metric in METRICS},
        tuple(point for point, _ in ordered),
    )


def _published_curve(published: Published) -> Curve:
    values = {metric.name: published.of(metric) for metric in METRICS if published.of(metric)}
    return Curve(published.method, "published", published.bpp, values, ("published",) * len(published.bpp))


def comparisons(curves: Sequence[Curve]) -> list[Comparison]:
    """Each series of presets against each other measured and published curve, by each metric both have."""
    found = []
    for curve in curves:
        if curve.kind != "codec" or len(curve.bpp) < 2:
            continue
        for anchor in curves:
            if anchor is curve or len(anchor.bpp) < 2:
                continue
            for metric in METRICS:
                if metric.name in anchor.values:
                    found.append(_compared(curve, anchor, metric))
    return found


def _compared(curve: Curve, anchor: Curve, metric: Metric) -> Comparison:
    rate, why = None, None
    try:
        rate = bd_rate(anchor.bpp, anchor.values[metric.name], curve.bpp, curve.values[metric.name])
        if rate is None:
            why = "hardly any quality that both reach"
    except ValueError as error:
        why = str(error)
    return Comparison(curve.name, anchor.name, anchor.kind, metric, rate, why)


def duels(codec: CodecResult, matched: MatchedResult) -> dict[str, Duel]:
    """By metric."""
    return {metric.name: duel(codec, matched, _worse(metric)) for metric in DUEL_METRICS}


class _worse:
    """A metric as a function that is lower for better pictures."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def __call__(self, scores: Scores) -> float:
        return -scores.of(self._metric) if self._metric.higher_is_better else scores.of(self._metric)


def to_json(evaluation: Evaluation) -> Json:
    """All but the pictures' pixels; docs: `archiver evaluate --help`."""
    curves = curves_of(evaluation)
    return {
        "source": evaluation.source,
        "created": evaluation.created,
        "machine": evaluation.machine,
        "pictures": list(evaluation.pictures),
        "pixels": evaluation.pixels,
        "left_out": dict(evaluation.left_out),
        "failed": list(evaluation.failed),
        "codecs": [_codec_json(codec, evaluation) for codec in evaluation.codecs],
        "bd_rates": [_comparison_json(one) for one in comparisons(curves)],
        "published": [asdict(one) for one in published_in(evaluation)],
        "published_note": published_note(evaluation),
        "rules": {
            "bytes_at_most_times": TOLERANCE,
            "sizes_chosen_by": "lpips_alex",
            "artefact_limits": asdict(LIMITS),
        },
    }


def _codec_json(codec: CodecResult, evaluation: Evaluation) -> Json:
    return {
        "preset": codec.preset,
        "family": codec.family,
        **_sums_json(codec.sums),
        "bpp_all_in": codec.bpp_all_in,
        "archive_bytes": {**asdict(codec.archive), "overhead": codec.archive.overhead},
        "encode": asdict(codec.encode),
        "decode": asdict(codec.decode),
        "patch_distance": asdict(codec.patch_distance) if codec.patch_distance else None,
        "pictures": [_picture_json(picture) for picture in codec.pictures],
        "at_equal_bytes": {
            name: {
                **_sums_json(matched.sums),
                "over": matched.over,
                "preset_better": {metric: asdict(found) for metric, found in duels(codec, matched).items()},
                "pictures": [
                    {
                        **_picture_json(one.picture),
                        "scale": one.scale,
                        "quality": one.quality,
                        "over": one.over,
                    }
                    for one in matched.pictures
                ],
            }
            for name, matched in evaluation.matched_at(codec.preset).items()
        },
    }


def _sums_json(sums: Sums) -> Json:
    return {
        "bytes": sums.bytes,
        "bpp_mean": sums.bpp_mean,
        "bpp_total": sums.bpp_total,
        **asdict(sums.scores),
        "worst_artefacts": asdict(sums.worst),
        "artefacts_above_limit": exceeded(sums.worst),
    }


def _picture_json(picture: PictureResult) -> Json:
    return {
        "key": picture.key,
        "bytes": picture.bytes,
        "bpp": picture.bpp,
        **asdict(picture.scores),
        "artefacts": asdict(picture.artefacts),
    }


def _comparison_json(one: Comparison) -> Json:
    return {
        "codec": one.curve,
        "anchor": one.anchor,
        "anchor_published": one.anchor_kind == "published",
        "metric": one.metric.name,
        "percent": one.rate.percent if one.rate else None,
        "range": [one.rate.low, one.rate.high] if one.rate else None,
        "share": one.rate.share if one.rate else None,
        "why_none": one.why,
    }
