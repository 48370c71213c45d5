"""`archiver report`: what an archive holds, and what it costs beside the originals."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.commands.options import ArchiveArgument, ArchiveOptions, AsJson, location
from archiver.console import Cell, Column, count_text, print_json, print_table, say

if TYPE_CHECKING:
    from pipelines.costs import CostLine
    from pipelines.prices import Prices
    from pipelines.report import Report
    from pipelines.verdict import Share


def report(
    archive: ArchiveArgument,
    prices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file whose numbers replace those of pipelines/prices.toml."),
    ] = None,
    source_class: Annotated[
        str, typer.Option(metavar="CLASS", help="S3 storage class of the originals.")
    ] = "STANDARD",
    archive_class: Annotated[
        str, typer.Option(metavar="CLASS", help="S3 storage class of the archive's parts.")
    ] = "STANDARD",
    gpu: Annotated[str, typer.Option(metavar="NAME", help="What GPU seconds are priced as.")] = "L4",
    restored_per_year: Annotated[
        float, typer.Option(min=0, metavar="SHARE", help="Images that are asked for in a year: 0.01 is 1 %.")
    ] = 0.01,
    years: Annotated[
        float, typer.Option(min=0, metavar="N", help="How long originals or archive are kept.")
    ] = 5.0,
    decode_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Of one image: `archiver verify --decode` and `archiver restore --json` measure it.",
        ),
    ] = None,
    decode_machine: Annotated[
        str, typer.Option(metavar="NAME", help="What --decode-seconds are priced as: cpu, or as --gpu.")
    ] = "cpu",
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """Say what the archive holds and costs: to make, to keep and to restore, beside keeping the originals."""
    from pipelines.prices import load_prices
    from pipelines.report import report as reported
    from pipelines.select import open_archive

    loaded = load_prices(prices)
    found = reported(
        open_archive(location(archive, archive_option)),
        loaded,
        restored_per_year,
        source_class,
        archive_class,
        gpu,
        years,
        decode_seconds,
        decode_machine,
    )
    if as_json:
        about = {"date": loaded.date, "region": loaded.region, "currency": loaded.currency}
        print_json({**vars(found), "prices": about})
    else:
        _print_report(found, loaded)


def _print_report(found: "Report", prices: "Prices") -> None:
    say(f"{found.archive}, version {found.version}", "")
    numbers = ("objects", "bytes", "an image", "bits a pixel")
    print_table([Column(""), *(Column(name, number=True) for name in numbers)], _holdings(found))
    say("", f"{count_text(found.images, 'image')}, {found.ratio:,.1f} : 1 with all that is stored")
    weights = sum(objects.size_bytes for objects in found.objects if objects.kind == "weights")
    if weights:
        rest = found.source_bytes / (found.archive_bytes - weights)
        say(f"{rest:,.1f} : 1 without the weights, which are stored once for however many images")
    if found.failures:
        left = f"{found.failed_source_bytes:,} bytes of originals that have to stay"
        say(f"{count_text(found.failures, 'failure')}: {left}")
    say("")
    print_table(
        [
            Column("what"),
            Column("quantity", number=True),
            Column("unit"),
            Column("x unit price", number=True),
            Column("= cost", number=True),
            Column("per"),
            Column("note", least=140),
        ],
        _bill(found.lines),
    )
    say("")
    shares = ("all", "a million images", "a TB of originals")  # TB: 10**12 bytes
    print_table([Column("together"), *(Column(name, number=True) for name in shares)], _shares(found))
    say("", found.verdict.sentence)
    say(f"Prices: {prices.currency}, {prices.region}, {prices.date}; --prices FILE replaces them.")


def _holdings(found: "Report") -> Iterator[tuple[Cell, ...]]:
    def row(what: str, count: int | None, size_bytes: int) -> tuple[Cell, ...]:
        each = size_bytes / max(1, found.images), 8 * size_bytes / max(1, found.pixels)
        return (
            what,
            None if count is None else f"{count:,}",
            f"{size_bytes:,}",
            f"{each[0]:,.1f}",
            f"{each[1]:,.4f}",
        )

    yield row("originals", found.images, found.source_bytes)
    yield row("archive", sum(objects.count for objects in found.objects), found.archive_bytes)
    yield row(" of which bitstreams", None, found.bitstream_bytes)
    yield row(" of which captions", None, found.caption_bytes)
    yield row(" of which all else", None, found.overhead_bytes)
    for objects in found.objects:
        yield row(f" in {objects.kind}", objects.count, objects.size_bytes)


def _bill(lines: "tuple[CostLine, ...]") -> Iterator[tuple[Cell, ...]]:
    from pipelines.verdict import dollars_text

    for section, several in groupby(lines, key=lambda line: line.section):
        yield (section.upper(), "", "", "", "", "", "")
        for line in several:
            yield (
                f" {line.what}",
                _quantity(line.quantity) if line.known else "unknown",
                line.unit,
                dollars_text(line.unit_price),
                dollars_text(line.dollars) if line.known else "unknown",
                line.period,
                line.note,
            )


def _quantity(value: float) -> str:
    """Example: 1234.5 -> "1,234.5"; 0.000001234 -> "0.00000123" (three digits that count, no exponent)."""
    from pipelines.verdict import dollars_text

    return f"{value:,.1f}" if value >= 100 else dollars_text(value).replace("$", "")


def _shares(found: "Report") -> Iterator[tuple[Cell, ...]]:
    from pipelines.verdict import dollars_text

    verdict = found.verdict
    shares: tuple[tuple[str, Share], ...] = (
        ("keep the originals, a month", verdict.keep_originals_month),
        ("encode, once", verdict.encode_once),
        ("keep the archive, a month", verdict.keep_archive_month),
        ("restore one image", verdict.restore_one),
        ("restore, a year", verdict.restore_year),
    )
    for name, share in shares:
        yield name, *map(dollars_text, (share.dollars, share.of_images(1e6), share.of_source_bytes(1e12)))
    for name, dollars in (("originals", verdict.originals_dollars), ("archive", verdict.archive_dollars)):
        yield f"{name}, {verdict.years:g} years", dollars_text(dollars), "", ""
