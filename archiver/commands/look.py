"""`archiver ls` and `archiver failures`: what an archive holds, and what it does not."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from archiver.commands.options import (
    FOUND,
    ArchiveArgument,
    ArchiveOptions,
    AsJson,
    Limit,
    Where,
    WhereFailed,
    location,
)
from archiver.console import (
    Column,
    Json,
    bytes_text,
    complain,
    count_text,
    print_json_lines,
    print_table,
    say,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from manifests.part import Damaged

MOST_ROWS = 1000  # of a table for people, unless they ask for more


def ls(
    archive: ArchiveArgument,
    where: Where = None,
    limit: Limit = None,
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """List archived images by SQL condition. Reads no pixels."""
    from pipelines.select import open_archive, select

    damage = Damage("ls")
    found = select(open_archive(location(archive, archive_option)), where, limit, tell=damage.tell)
    if as_json:
        print_json_lines(_objects(found))
        damage.exit_if_any()
        return
    shown = found if limit is not None else found.slice(0, MOST_ROWS)
    rows = shown.to_pylist()
    if rows:
        print_table(
            [
                Column("key", cut=True),
                Column("pixels", number=True),
                Column("source", number=True, least=60),
                Column("bits", number=True, least=70),
                Column("bpp", number=True),
                Column("codec", cut=True, least=100),
                Column("caption", cut=True),
            ],
            [
                (
                    row["key"],
                    f"{row['width']} x {row['height']}",
                    bytes_text(row["source_bytes"]),
                    bytes_text(row["bitstream_bytes"]),
                    f"{row['bpp']:.4f}",
                    row["codec"],
                    row["caption"],
                )
                for row in rows
            ],
        )
    say(*_closing(found, len(shown)))
    damage.exit_if_any()


def _closing(found: "pa.Table", shown: int) -> Iterator[str]:
    import pyarrow.compute as pc

    if not len(found):
        yield "No such images."
        return
    source_bytes, bitstream_bytes = (
        int(pc.sum(found[name]).as_py()) for name in ("source_bytes", "bitstream_bytes")
    )
    sizes = f"{bytes_text(source_bytes)} at the source, {bytes_text(bitstream_bytes)} here"
    yield f"{count_text(len(found), 'image')}: {sizes}"
    if shown < len(found):
        yield f"The first {shown:,} are shown; --limit N shows more, --json all."


def _objects(found: "pa.Table") -> Iterator[Json]:
    for batch in found.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def failures(
    archive: ArchiveArgument,
    where: WhereFailed = None,
    limit: Limit = None,
    archive_option: ArchiveOptions = None,
    as_json: AsJson = False,
) -> None:
    """List the keys that could not be archived, and why. `encode --retry-failures` tries them again."""
    from pipelines.select import failures as failures_of
    from pipelines.select import open_archive

    damage = Damage("failures")
    found = failures_of(open_archive(location(archive, archive_option)), where, limit, tell=damage.tell)
    if as_json:
        print_json_lines(_objects(found))
        damage.exit_if_any()
        return
    shown = found if limit is not None else found.slice(0, MOST_ROWS)
    if len(shown):
        print_table(
            [Column("key", cut=True), Column("source", number=True), Column("why")],
            [(row["key"], bytes_text(row["source_bytes"]), row["failure"]) for row in shown.to_pylist()],
        )
    say(f"{count_text(len(found), 'failure')}" if len(found) else "No failures.")
    if len(shown) < len(found):
        say(f"The first {len(shown):,} are shown; --limit N shows more, --json all.")
    damage.exit_if_any()


class Damage:
    """Names records that cannot be queried, as they are found, and makes the verb's exit code say so."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._count = 0

    def tell(self, damaged: "Damaged") -> None:
        self._count += 1
        complain(f"archiver {self._verb}: {damaged.key}: {damaged.what}: damaged or lost")

    def exit_if_any(self) -> None:
        if self._count:
            complain(
                f"archiver {self._verb}: {count_text(self._count, 'record')} could not be read; "
                "archiver verify says more"
            )
            raise typer.Exit(FOUND)
