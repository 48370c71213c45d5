"""`archiver doctor`: whether a place can hold an archive."""

from typing import Annotated

import typer

from archiver.commands.options import FOUND, ArchiveOptions, AsJson, location
from archiver.console import print_json, say


def doctor(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where an archive is, or is to be.")],
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """Try out what archives rely on at URL, and say what is unsafe there. Leaves nothing behind."""
    from pipelines.doctor import probe

    place = location(url, archive_option)
    findings = probe(place)
    ok = all(finding.ok for finding in findings)
    if as_json:
        print_json({"url": str(place), "ok": ok, "findings": [vars(finding) for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'BAD '} {finding.name:{width}}  {finding.words}")
        bad = sum(not finding.ok for finding in findings)
        say(
            "",
            f"{place}: "
            + ("all that archives rely on holds" if ok else f"{bad} of {len(findings)} do not hold"),
        )
    if not ok:
        raise typer.Exit(FOUND)
