"""`archiver verify`: whether every byte of an archive is what it was."""

from typing import TYPE_CHECKING, Annotated

import typer

from archiver.commands.options import FOUND, ArchiveArgument, ArchiveOptions, AsJson, location
from archiver.console import bytes_text, count_text, print_json, say
from archiver.progress import Meter

if TYPE_CHECKING:
    from pipelines.verify import Checked, Finding


def verify(
    archive: ArchiveArgument,
    decode: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="FRACTION", help="Share of the images that is decoded, too: 1 is all."
        ),
    ] = 0.0,
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """Read every object and check it, every record and every plan; name what is damaged or missing."""
    from archiver.codecs import load_codec
    from pipelines.verify import Checked, Finding
    from pipelines.verify import verify as verified
    from pipelines.weights import default_cache

    place = location(archive, archive_option)
    findings: list[Finding] = []
    checked = Checked(0, 0, 0, 0, 0, 0)
    with Meter("Verifying", "parts") as meter:
        for event in verified(place, decode, load_codec, default_cache()):
            if isinstance(event, Finding):
                findings.append(event)
                continue
            if not checked.all_parts:
                meter.begin(0, event.all_parts)
            checked = event
            meter.show(checked.parts, checked.all_parts)
    ok = all(finding.harmless for finding in findings)
    if as_json:
        print_json(
            {
                "archive": str(place),
                "ok": ok,
                **vars(checked),
                "findings": [{**vars(finding), "harmless": finding.harmless} for finding in findings],
            }
        )
    else:
        say(*(f"{finding.kind:11} {finding.name}: {finding.words}" for finding in findings))
        say(_summary(checked, findings))
    if not ok:
        raise typer.Exit(FOUND)


def _summary(checked: "Checked", findings: list["Finding"]) -> str:
    read = (
        f"{count_text(checked.records, 'record')} in {count_text(checked.parts, 'part')}, "
        f"{count_text(checked.objects, 'object')}, {bytes_text(checked.bytes)} read, "
        f"{count_text(checked.decoded, 'image')} decoded"
        + (f" in {checked.decode_seconds:.3g} s each: " if checked.decode_seconds is not None else ": ")
    )
    harmful = sum(not finding.harmless for finding in findings)
    if harmful:
        return f"{read}{count_text(harmful, 'thing')} damaged or missing"
    return f"{read}all intact" + (", and nothing archived is touched by the above" if findings else "")
