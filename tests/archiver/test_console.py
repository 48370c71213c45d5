"""What people and programs read."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest

from archiver.console import (
    Column,
    bytes_text,
    complain,
    count_text,
    duration_text,
    one_line,
    print_json,
    print_json_lines,
    print_table,
    say,
    seen,
)
from archiver.progress import Meter, state_text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """40 letters wide."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (999_499, "999 kB"),
        (999_501, "1.00 MB"),
        (1_234_567, "1.23 MB"),
        (123_456_789_012, "123 GB"),
        (5 * 10**18, "5000 PB"),
        (-1500, "-1.50 kB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.94, "60 s"),
        (59.96, "1 min 00 s"),
        (75, "1 min 15 s"),
        (7384, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counts() -> None:
    assert [count_text(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert count_text(2, "copy", "copies") == "2 copies"


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert seen("a\x1b[2Jb\nc\x9b\u202ed") == "a\\x1b[2Jb\\x0ac\\x9b\\u202ed"
    say("[bold]key[/bold] \x1b]0;title\x07")
    print_table([Column("key")], [["\x1b[31mred[/]"]])
    complain("\x1b[2J")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "[bold]key[/bold] \\x1b]0;title\\x07" in out  # no markup either
    assert "\\x1b[31mred[/]" in out


def test_errors_of_other_people_become_one_line() -> None:
    theirs = (
        "Kernel error -> S3 error\n   \x1b[31m↳\x1b[0m Error performing GET\n      \x1b[31m↳\x1b[0m refused"
    )
    assert one_line(theirs) == "Kernel error -> S3 error: Error performing GET: refused"
    assert len(one_line("x" * 10_000)) == 500


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """However long: what is piped is searched, not looked at."""
    key = "/".join(["folder"] * 100)
    print_table([Column("key", cut=True), Column("bytes", number=True)], [[key, 1]])
    say(key)
    out = capsys.readouterr().out
    assert out.count(key) == 2
    assert out.splitlines()[-1] == key


def test_lines_to_a_pipe_end_without_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column("key", cut=True), Column("bytes", number=True), Column("why")]
    print_table(columns, [["a  b", 1, "a long reason"], ["a" * 300, 1, None], ["c", None, "d"]])
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert [line.split() for line in lines] == [
        ["key", "bytes", "why"],
        ["a", "b", "1", "a", "long", "reason"],
        ["a" * 300, "1"],
        ["c", "d"],
    ]
    assert lines[1].startswith("a  b ")


def test_a_narrow_terminal_cuts_text_and_keeps_numbers(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        print_table(
            [Column("key", cut=True), Column("bytes", number=True)],
            [["a/very/long/key/that/does/not/fit/here.jpg", "123,456,789"]],
        )
    lines = terminal.getvalue().splitlines()
    assert "123,456,789" in terminal.getvalue()
    assert "…" in terminal.getvalue()
    assert max(len(line) for line in lines if "\x1b" not in line) <= 40


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"key": "é\n", "none": None, "tuple": (1, 2)})
    out = capsys.readouterr().out
    assert json.loads(out) == {"key": "é\n", "none": None, "tuple": [1, 2]}
    print_json_lines([{"key": "a\nb"}, {"key": "c"}])
    assert [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()] == ["a\nb", "c"]


def test_json_has_no_numbers_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"ratio": float("inf")})


def test_the_state_of_a_run() -> None:
    assert state_text(50, 200, 40, 10.0, "images", 3_000_000) == (
        "50 of 200 images · 4.0/s · 3.00 MB saved · 38 s left"
    )
    assert state_text(0, 200, 0, 0.0, "images", None) == "0 of 200 images"
    assert state_text(200, 200, 200, 1.0, "images", -5) == "200 of 200 images · 200/s"
    assert (
        state_text(50, 200, 50, 10.0, "images", 3_000_000, wide=False)
        == "50/200 · 5.0/s · 3.00 MB · 30 s left"
    )


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("Encoding", "images") as meter:
        meter.begin(0, 10)
        meter.show(10, 10, 1000)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Meter("Encoding", "images") as meter:
        meter.begin(0, 10)
        meter.show(5, 10, 1000)
    assert "5/10" in terminal.getvalue()
