"""Results -> what a person reads, or JSON for programs; progress and complaints go to stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Mapping[str, object]
Cell = str | int | float | None

WIDEST = 100_000  # letters
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")  # of 1000
# What a terminal obeys, and what turns the direction of text: keys and captions are other people's.
_UNSEEN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


@dataclass(frozen=True)
class Column:
    """A heading, and how its cells go into the width that there is."""

    name: str
    number: bool = False  # to the right, and never cut
    cut: bool = False  # text that is cut on a narrow screen; other text is folded
    least: int = 0  # letters that a screen has at least, else the column is left out


def stdout() -> Console:
    """As wide as the terminal; a file or a pipe gets lines as long as they are."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDEST
    return console


def stderr() -> Console:
    return Console(file=sys.stderr, highlight=False)


def say(*lines: str) -> None:
    """Lines for people, on stdout; keys and captions in them are made harmless."""
    console = stdout()
    for line in lines:
        console.print(Text(seen(line)))


def complain(line: str) -> None:
    """One line on stderr."""
    stderr().print(Text(seen(line)), soft_wrap=True)


def print_json(document: Json | Sequence[Json]) -> None:
    """One document on stdout, indented."""
    sys.stdout.write(
        json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    )


def print_json_lines(objects: Iterable[Json]) -> None:
    """One object a line."""
    for found in objects:
        sys.stdout.write(json.dumps(found, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} in a JSON document")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    console = stdout()
    shown = [place for place, column in enumerate(columns) if console.width >= column.least]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place in shown:
        column = columns[place]
        table.add_column(column.name, justify="right" if column.number else "left", no_wrap=column.number)
    for row in rows:
        table.add_row(*(_cell(columns[place], row[place]) for place in shown))
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():  # rich fills lines with spaces, up to the longest
        sys.stdout.write(line.rstrip() + "\n")


def _cell(column: Column, cell: Cell) -> Text:
    text = "" if cell is None else str(cell)
    # no_wrap is the cell's here: a column with it would shrink no sooner than the numbers.
    return Text(seen(text), no_wrap=column.cut, overflow="ellipsis" if column.cut else "fold")


def seen(text: str) -> str:
    """Text without control characters.

    Example: seen("a\\x1b[2J\\n") -> "a\\\\x1b[2J\\\\x0a"
    """
    return text.translate(_UNSEEN)


def one_line(text: str, most: int = 500) -> str:
    """Example: one_line("Kernel error\\n   \\x1b[31m↳\\x1b[0m refused") -> "Kernel error: refused"."""
    for colour in ("\x1b[31m", "\x1b[0m"):
        text = text.replace(colour, "")
    lines = [" ".join(line.split()).removeprefix("↳ ") for line in text.splitlines()]
    joined = ": ".join(line for line in lines if line)
    return joined if len(joined) <= most else joined[: most - 1] + "…"


def bytes_text(count: float) -> str:
    """Example: 999 -> "999 bytes"; 1 -> "1 byte"; 1234567 -> "1.23 MB"."""
    size, unit = float(count), 0
    while abs(size) >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if unit == 0:
        return f"{count:.0f} {'byte' if count == 1 else 'bytes'}"
    places = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:.{places}f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """Example: 0.42 -> "0.4 s"; 75 -> "1 min 15 s"; 7384 -> "2 h 03 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Example: count_text(1, "image") -> "1 image"; count_text(2000, "image") -> "2,000 images"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
