"""The lines of a bill -> what one image costs, and when dropping the originals pays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.costs import CostLine, Holdings, Period, Section

CAVEAT = "No line prices what is lost: restored images are reconstructions, not the originals."

LEFT_OUT: dict[Section, str] = {"encode": "seconds of encoding", "restore": "seconds of decoding"}


@dataclass(frozen=True)
class Share:
    """Dollars: all together; of it what a larger archive pays no more of; the rest for one image, and for one byte of
    the originals; 0 where there is none."""

    dollars: float
    fixed: float
    per_image: float
    per_source_byte: float

    def of_images(self, count: float) -> float:
        """Of so many images like these."""
        return self.fixed + count * self.per_image

    def of_source_bytes(self, count: float) -> float:
        """Of so many bytes of originals like these."""
        return self.fixed + count * self.per_source_byte


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
    break_even_images: (
        int | None
    )  # so many like these would pay back within the years; None: these do, or none would
    sentence: str
    left_out: tuple[str, ...]  # what was not measured, and so stands as 0 in all these figures


def verdict(lines: Sequence[CostLine], holdings: Holdings, years: float = 5.0) -> Verdict:
    """Add the lines up: the originals lie there already, and are deleted once the archive stands."""
    originals = _monthly(lines, "keep originals")
    archive = _monthly(lines, "keep archive") + _monthly(lines, "restore")
    once = _sum(lines, "encode", "once")
    left_out = tuple(dict.fromkeys(LEFT_OUT[line.section] for line in lines if not line.known))
    month = _break_even_month(once, originals - archive, years) if holdings.images else None
    enough = None if month is not None or not holdings.images else _break_even_images(lines, holdings, years)

    def share(section: Section, period: Period) -> Share:
        return _share(lines, section, period, holdings)

    one = _sum(lines, "restore", "image")
    source_bytes = holdings.source.size_bytes / holdings.source.count if holdings.source.count else 0.0
    return Verdict(
        years=years,
        keep_originals_month=share("keep originals", "month"),
        encode_once=share("encode", "once"),
        keep_archive_month=share("keep archive", "month"),
        restore_one=Share(one, 0.0, one, one / source_bytes if source_bytes else 0.0),
        restore_year=share("restore", "year"),
        originals_dollars=12 * years * originals,
        archive_dollars=once + 12 * years * archive,
        break_even_month=month,
        break_even_images=enough,
        sentence=_sentence(holdings, years, once, originals, archive, month, enough, left_out),
        left_out=left_out,
    )


def dollars_text(dollars: float) -> str:
    """Example: 1234.5 -> "$1,234.50"; 0.00001234 -> "$0.0000123" (three digits that count, no exponent)."""
    sign, size = ("-" if dollars < 0 else ""), abs(dollars)
    if size == 0 or size >= 0.995:
        return f"{sign}${size:,.2f}"
    places = 2 - math.floor(math.log10(size))
    return f"{sign}${size:.{places}f}"


def _sum(
    lines: Sequence[CostLine], section: Section, period: Period, growing: tuple[bool, ...] = (False, True)
) -> float:
    return math.fsum(
        line.dollars
        for line in lines
        if (line.section, line.period) == (section, period) and line.grows in growing
    )


def _monthly(lines: Sequence[CostLine], section: Section, growing: tuple[bool, ...] = (False, True)) -> float:
    return _sum(lines, section, "month", growing) + _sum(lines, section, "year", growing) / 12


def _share(lines: Sequence[CostLine], section: Section, period: Period, holdings: Holdings) -> Share:
    fixed, growing = (_sum(lines, section, period, (grows,)) for grows in (False, True))

    def part(count: int) -> float:
        return growing / count if count else 0.0

    return Share(fixed + growing, fixed, part(holdings.images), part(holdings.source.size_bytes))


def _break_even_month(once: float, saved_month: float, years: float) -> int | None:
    if saved_month <= 0:
        return None
    months = max(1, math.ceil(once / saved_month - 1e-9))  # 12.000000000001 months are 12
    return months if months <= 12 * years else None


def _break_even_images(lines: Sequence[CostLine], holdings: Holdings, years: float) -> int | None:
    """How many like these save over the years what is paid once for however many; of an archive that does not pay."""
    months = math.floor(12 * years)

    def spent(grows: bool) -> float:
        kept = _monthly(lines, "keep archive", (grows,)) + _monthly(lines, "restore", (grows,))
        return _sum(lines, "encode", "once", (grows,)) + months * kept

    saved = months * _monthly(lines, "keep originals") - spent(grows=True)
    if saved <= 0:
        return None
    return max(holdings.images + 1, math.ceil(spent(grows=False) * holdings.images / saved))


def _sentence(
    holdings: Holdings,
    years: float,
    once: float,
    originals: float,
    archive: float,
    month: int | None,
    enough: int | None,
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
        ever = ", or ever" if enough is None else ""
        said = (
            f"Does not pay back {span}{ever}: the archive costs {dollars_text(archive)} a month, "
            f"the originals {dollars_text(originals)}."
        )
    if enough is not None:
        said += f" With {enough:,} images like these it would: part of this is paid once for however many."
    unmeasured = f"Leaves out what was not measured ({', '.join(left_out)}). " if left_out else ""
    return f"{unmeasured}{said} {CAVEAT}"
