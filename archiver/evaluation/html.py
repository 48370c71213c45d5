"""An `Evaluation` -> one HTML page that needs nothing else: plots, tables, and pictures to swipe between."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from archiver.evaluation.artefacts import LIMITS
from archiver.evaluation.baselines import SCALES, TITLES, TOLERANCE
from archiver.evaluation.metrics import METRICS
from archiver.evaluation.plot import rd_plot
from archiver.evaluation.report import (
    DUEL_METRICS,
    Comparison,
    Curve,
    comparisons,
    curves_of,
    duels,
    published_in,
    published_note,
)
from archiver.evaluation.results import CodecResult, Duel, Evaluation, Shown, Sums

_CODECS = ("#d6336c", "#1c6dd0", "#0a8f6a", "#8a3ffc", "#c2540a", "#0e7490")
_CONVENTIONAL = {"AVIF": "#3d4756", "JPEG XL": "#6b7684", "WebP": "#8d97a5", "JPEG": "#b0b8c3"}
_PUBLISHED = (
    "#b08900", "#5b8c00", "#00897b", "#3f7fbf", "#7e57c2", "#ad4d8c", "#c0563b",
    "#8d6e63", "#607d8b", "#9e9d24", "#4db6ac", "#9575cd", "#e57373",
)  # fmt: skip


def page(evaluation: Evaluation) -> str:
    curves = curves_of(evaluation)
    colours = _colours(curves)
    compared = comparisons(curves)
    by_rate = sorted(evaluation.codecs, key=lambda codec: codec.sums.bpp_mean)
    body = (
        _header(evaluation),
        _section("Codecs", _codec_table(by_rate)),
        _section("Rate and quality", _plots(evaluation, curves, colours)),
        _section("At equal bytes", "".join(_at_equal_bytes(evaluation, codec) for codec in by_rate))
        if evaluation.matched
        else "",
        _section("Bits at equal quality (BD-rate)", _bd_table(compared)) if compared else "",
        _section("Look at them", _swipe(evaluation.shown)) if evaluation.shown else "",
        _section("Artefacts", _artefact_table(evaluation)),
        _section("How this was measured", _method(evaluation)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Codecs on {escape(evaluation.source)}</title><style>{_file('page.css')}</style></head>\n"
        f"<body>{''.join(body)}\n<script>{_file('page.js')}</script></body></html>\n"
    )


def _file(name: str) -> str:
    return files("archiver.evaluation").joinpath(name).read_text("utf-8")


def _section(title: str, content: str) -> str:
    return f"\n<section><h2>{escape(title)}</h2>{content}</section>"


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Cells are HTML; each row has a class."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for kind, row in rows
    )
    return f'<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def _header(evaluation: Evaluation) -> str:
    left_out = "".join(f"<li>{escape(key)}: {escape(why)}</li>" for key, why in evaluation.left_out.items())
    return (
        f"<h1>Codecs on {len(evaluation.pictures)} pictures</h1>"
        f'<p class="facts">{escape(evaluation.source)} · {evaluation.pixels / 1e6:.1f} megapixels · '
        f"{escape(evaluation.created)} · {escape(evaluation.machine)}</p>"
        + (
            f"<details><summary>{len(evaluation.left_out)} left out</summary><ul>{left_out}</ul></details>"
            * bool(left_out)
        )
    )


def _metric_heads() -> list[str]:
    arrows = {True: "↑", False: "↓"}
    return [f"{escape(metric.title)} {arrows[metric.higher_is_better]}" for metric in METRICS]


def _values(sums: Sums) -> list[str]:
    return [f"{sums.scores.of(metric):.{metric.places}f}" for metric in METRICS]


def _codec_table(codecs: Sequence[CodecResult]) -> str:
    patches = any(codec.patch_distance for codec in codecs)
    head = ["preset", "bpp<br>mean of pictures", "bpp<br>all bits / all pixels", "bpp<br>whole archive"]
    head += [*_metric_heads(), *(["FID<br>patches", "KID · 1000<br>patches"] if patches else [])]
    head += ["encode<br>MPix/s", "decode<br>MPix/s", "memory, MB<br>encode · decode"]
    rows = []
    for codec in codecs:
        sums, found = codec.sums, codec.patch_distance
        rates = [f"{sums.bpp_mean:.4f}", f"{sums.bpp_total:.4f}", f"{codec.bpp_all_in:.4f}"]
        distances = [f"{found.fid:.2f}", f"{1000 * found.kid:.2f}"] if found else ["", ""]
        speeds = [f"{side.megapixels_per_second:.2f}" for side in (codec.encode, codec.decode)]
        memory = " · ".join(f"{side.peak_bytes / 1e6:,.0f}" for side in (codec.encode, codec.decode))
        cells = [
            escape(codec.preset),
            *rates,
            *_values(sums),
            *(distances if patches else []),
            *speeds,
            memory,
        ]
        rows.append(("ours", cells))
    return _table(head, rows)


def _colours(curves: Sequence[Curve]) -> Mapping[str, str]:
    colours, codecs, published = {}, 0, 0
    for curve in curves:
        if curve.kind == "codec":
            colours[curve.name] = _CODECS[codecs % len(_CODECS)]
            codecs += 1
        elif curve.kind == "conventional":
            colours[curve.name] = _CONVENTIONAL[curve.name.split(",")[0]]
        else:
            colours[curve.name] = _PUBLISHED[published % len(_PUBLISHED)]
            published += 1
    return colours


_LEGEND_TITLES = {
    "codec": "Measured",
    "conventional": "Conventional, at the presets' bytes",
    "published": "Published",
}


def _plots(evaluation: Evaluation, curves: Sequence[Curve], colours: Mapping[str, str]) -> str:
    legend, kind = [], None
    for number, curve in enumerate(curves):
        if curve.kind != kind:
            kind = curve.kind
            legend.append(f"<b>{_LEGEND_TITLES[kind]}</b>")
        mark = (
            '<rect x="10" y="2" width="6" height="6"/>'
            if kind == "conventional"
            else '<circle cx="13" cy="5" r="4"/>'
        )
        line = f'<svg class="curve {kind}" style="--c:{colours[curve.name]}"><polyline points="0,5 26,5"/>{mark}</svg>'
        legend.append(f'<span data-legend="{number}">{line}{escape(curve.name)}</span>')
    plots = "".join(rd_plot(metric, curves, colours) for metric in METRICS)
    note = published_note(evaluation)
    return f'<div class="legend">{"".join(legend)}</div><div class="plots">{plots}</div>' + (
        f'<p class="note">{escape(note)}</p>' if note else ""
    )


def _at_equal_bytes(evaluation: Evaluation, codec: CodecResult) -> str:
    head = ["", "bpp", *_metric_heads(), "sizes taken"]
    head += [f"preset better by<br>{escape(metric.title)}" for metric in DUEL_METRICS]
    rows = [("ours", [escape(codec.preset), f"{codec.sums.bpp_mean:.4f}", *_values(codec.sums), "", "", ""])]
    for name, matched in evaluation.matched_at(codec.preset).items():
        scales = [one.scale for one in matched.pictures]
        sizes = ", ".join(
            f"{scales.count(scale)} at {'full' if scale == 1 else f'1/{scale}'}"
            for scale in SCALES
            if scale in scales
        )
        over = f" <small>({matched.over} larger than asked)</small>" if matched.over else ""
        sums = matched.sums
        cells = [TITLES[name] + over, f"{sums.bpp_mean:.4f}", *_values(sums), f"<small>{sizes}</small>"]
        rows.append(("", [*cells, *(_duel(found) for found in duels(codec, matched).values())]))
    return f"<h3>{escape(codec.preset)}</h3><p class='note'>{escape(codec.summary)}</p>" + _table(head, rows)


def _duel(found: Duel) -> str:
    lost = ", ".join(found.lost)
    kind = "good" if not found.lost else "bad" if 2 * found.wins < found.pictures else ""
    told = escape(f"not at {lost}" if lost else "at all")
    return f'<span class="{kind}" title="{told}">{found.wins} of {found.pictures}</span>'


def _bd_table(compared: Sequence[Comparison]) -> str:
    metrics = [metric for metric in METRICS if any(one.metric == metric for one in compared)]
    rows = []
    pairs = dict.fromkeys((one.curve, one.anchor, one.anchor_kind) for one in compared)
    for curve, anchor, kind in pairs:
        found = {one.metric: one for one in compared if (one.curve, one.anchor) == (curve, anchor)}
        told = " <small>(published)</small>" if kind == "published" else ""
        cells = [f"{escape(curve)} <small>against</small> {escape(anchor)}{told}"]
        rows.append(("", [*cells, *(_bd_cell(found.get(metric)) for metric in metrics)]))
    note = (
        "How many bits the first needs for the quality of the second: −30 % is 30 % fewer. Logarithmic rate, monotone "
        "cubic interpolation, only over qualities that both curves reach; the small number is the share of the "
        "narrower curve that this is. Point at an empty cell for the reason."
    )
    return f'<p class="note">{note}</p>' + _table(["", *(escape(metric.title) for metric in metrics)], rows)


def _bd_cell(one: Comparison | None) -> str:
    if one is None:
        return ""
    if one.rate is None:
        return f'<small title="{escape(one.why or "")}">–</small>'
    percent = f"{one.rate.percent:+.0f} %".replace("-", "−")
    kind = "good" if one.rate.percent < 0 else "bad"
    return f'<span class="{kind}">{percent}</span> <small>{100 * one.rate.share:.0f} %</small>'


def _swipe(shown: Sequence[Shown]) -> str:
    content = [
        {
            "key": one.key,
            "width": one.width,
            "height": one.height,
            "files": {name: _data_uri(file) for name, file in one.files.items()},
            "captions": dict(one.captions),
        }
        for one in shown
    ]
    # In a script element the browser looks for tags, whatever JSON's quotes say.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    choices = "".join(
        f'<label>{label} <select id="{name}"></select></label>'
        for label, name in (("Picture", "picture"), ("Left", "left"), ("Right", "right"))
    )
    return (
        f'<div class="choices">{choices}</div>'
        '<div class="swipe" id="swipe" style="--at:50%">'
        '<img id="right-image" alt=""><img class="left" id="left-image" alt="">'
        '<input type="range" id="slider" min="0" max="100" step="0.1" value="50" aria-label="Where the left one ends">'
        '<div class="bar"></div></div>'
        '<div class="under"><span id="left-caption"></span><span id="right-caption"></span></div>'
        f'<script type="application/json" id="shown">{data}</script>'
    )


def _data_uri(file: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(file).decode()


def _artefact_table(evaluation: Evaluation) -> str:
    names = list(vars(LIMITS))
    rows = []
    for codec in evaluation.codecs:
        cells = [escape(codec.preset)]
        for name in names:
            worst = max(codec.pictures, key=lambda picture: getattr(picture.artefacts, name))
            value = getattr(worst.artefacts, name)
            kind = "bad" if value > getattr(LIMITS, name) else ""
            cells.append(f'<span class="{kind}" title="{escape(worst.key)}">{value:.2f}</span>')
        rows.append(("", cells))
    rows.append(
        ("", ["<small>limit</small>", *(f"<small>{value:g}</small>" for value in vars(LIMITS).values())])
    )
    units = {"grid": "levels", "colour": "levels", "seam": "levels", "border": "ratio", "blow_up": "share"}
    heads = ["largest of all pictures", *(f"{name.replace('_', '-')}<br>{units[name]}" for name in names)]
    return _table(heads, rows)


def _method(evaluation: Evaluation) -> str:
    text = _file("page.method.html").replace("{tolerance}", f"{TOLERANCE:g}")
    sources = "".join(
        f"<li>{escape(one.method)}: {escape(one.source)} ({one.origin})</li>"
        for one in published_in(evaluation)
    )
    if not sources:
        return text
    return f"{text}<details><summary>Sources of the published curves</summary><ul class='note'>{sources}</ul></details>"
