"""The lines of a bill -> what one image costs, and when dropping the originals pays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.costs import CostLine, Holdings, Period, Section

CAVEAT = "No line prices what is lost: restored images are reconstructions, not the originals."

LEFT_OUT: dict[Section, str] = {"encode": "seconds of encoding", "restore": "seconds of decoding"}


@dataclass(frozen=True)
class Share:
    """Dollars, all together and for one image and one source byte of it; 0 where there is none."""

    dollars: float
    per_image: float
    per_source_byte: float


@dataclass(frozen=True)
class Verdict:
    """Originals against archive, over some years."""

    years: float
    keep_originals_month: Share
    encode_once: Share
    keep_archive_month: Share
    restore_one: Share  # one image, by itself
    restore_year: Share  # the yearly share
    originals_dollars: float  # kept and read over the years
    archive_dollars: float  # encoded, kept and restored over the years
    break_even_month: (
        int | None
    )  # first month at whose end the archive has cost no more; None: not within the years
    sentence: str
    left_out: tuple[str, ...]  # what was not measured, and so stands as 0 in all these figures


def verdict(lines: Sequence[CostLine], holdings: Holdings, years: float = 5.0) -> Verdict:
    """Add the lines up: the originals lie there already, and are deleted once the archive stands."""
    originals = _monthly(lines, "keep originals")
    archive = _monthly(lines, "keep archive") + _monthly(lines, "restore")
    once = _sum(lines, "encode", "once")
    left_out = tuple(dict.fromkeys(LEFT_OUT[line.section] for line in lines if not line.known))
    month = _break_even_month(once, originals - archive, years) if holdings.images else None

    def share(section: Section, period: Period) -> Share:
        return _share(_sum(lines, section, period), holdings)

    one = _sum(lines, "restore", "image")
    source_bytes = holdings.source.size_bytes / holdings.source.count if holdings.source.count else 0.0
    return Verdict(
        years=years,
        keep_originals_month=share("keep originals", "month"),
        encode_once=share("encode", "once"),
        keep_archive_month=share("keep archive", "month"),
        restore_one=Share(one, one, one / source_bytes if source_bytes else 0.0),
        restore_year=share("restore", "year"),
        originals_dollars=12 * years * originals,
        archive_dollars=once + 12 * years * archive,
        break_even_month=month,
        sentence=_sentence(holdings, years, once, originals, archive, month, left_out),
        left_out=left_out,
    )


def dollars_text(dollars: float) -> str:
    """Example: 1234.5 -> "$1,234.50"; 0.00001234 -> "$0.0000123" (three digits that count, no exponent)."""
    sign, size = ("-" if dollars < 0 else ""), abs(dollars)
    if size == 0 or size >= 0.995:
        return f"{sign}${size:,.2f}"
    places = 2 - math.floor(math.log10(size))
    return f"{sign}${size:.{places}f}"


def _sum(lines: Sequence[CostLine], section: Section, period: Period) -> float:
    return math.fsum(line.dollars for line in lines if (line.section, line.period) == (section, period))


def _monthly(lines: Sequence[CostLine], section: Section) -> float:
    return _sum(lines, section, "month") + _sum(lines, section, "year") / 12


def _share(dollars: float, holdings: Holdings) -> Share:
    def part(count: int) -> float:
        return dollars / count if count else 0.0

    return Share(dollars, part(holdings.images), part(holdings.source.size_bytes))


def _break_even_month(once: float, saved_month: float, years: float) -> int | None:
    if saved_month <= 0:
        return None
    months = max(1, math.ceil(once / saved_month - 1e-9))  # 12.000000000001 months are 12
    return months if months <= 12 * years else None


def _sentence(
    holdings: Holdings,
    years: float,
    once: float,
    originals: float,
    archive: float,
    month: int | None,
    left_out: Sequence[str],
) -> str:
    saved, span = originals - archive, f"within {years:g} years"
    if not holdings.images:
        said = "No images: nothing to compare."
    elif month is not None:
        said = f"Pays back in month {month}: {dollars_text(once)} once, {dollars_text(saved)} saved a month."
    elif saved > 0:
        said = (
            f"Does not pay back {span}: {dollars_text(once)} once, {dollars_text(saved)} saved a month, "
            f"takes {once / saved / 12:,.1f} years."
        )
    else:
        said = (
            f"Does not pay back {span}, or ever: the archive costs {dollars_text(archive)} a month, "
            f"the originals {dollars_text(originals)}."
        )
    unmeasured = f"Leaves out what was not measured ({', '.join(left_out)}). " if left_out else ""
    return f"{unmeasured}{said} {CAVEAT}"
