"""`archiver` commands, run in this process."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from archiver.cli import app


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: str | Path | int) -> str:
    """What a command prints that has to end well, and to complain of nothing."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refuse(*arguments: str | Path | int) -> str:
    """The complaint of a command that has to end as wrong, in one line, with nothing on stdout."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr.rstrip("\n")


def objects(lines: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.splitlines()]
