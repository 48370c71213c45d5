"""The command `archiver`: its verbs, and the one door through which errors leave."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperGroup

from archiver import __version__
from archiver.commands import (
    codecs,
    doctor,
    encode,
    evaluate,
    look,
    report,
    restore,
    single,
    train,
    verify,
    weights,
)
from archiver.commands.options import BROKEN_PIPE, INTERRUPTED, TERMINATED, WRONG
from archiver.console import complain, one_line

EXIT_CODES = """Exit codes: 0 all well; 1 done, but something was lost or is damaged or unsafe, and was named;
2 wrong usage, or it could not be done; 130 interrupted, 143 terminated: run the same command again."""


class _Door(TyperGroup):
    """Wrong input and failing storage end as one line that says what, where, and what was expected."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has seen enough: `archiver ls ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except (ValueError, OSError) as error:
            complain(f"archiver {ctx.invoked_subcommand}: {_words(error)}")
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            complain(f"archiver {ctx.invoked_subcommand}: interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _words(error: ValueError | OSError) -> str:
    """Example: FileNotFoundError(2, "No such file or directory", "/x") -> "/x: No such file or directory"."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return one_line(f"not found: {error}")
    return one_line(str(error)) or type(error).__name__


app = typer.Typer(
    name="archiver",
    cls=_Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"archiver {__version__}\n")
        raise typer.Exit


@app.callback()
def _archiver(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turns image collections into archives of tiny bitstreams, and gives any subset back as pixels."""


# The verbs, in the order of `archiver --help`: making, reading, checking, and what there is to choose from.
app.command()(encode.encode)
app.command()(restore.restore)
app.command()(look.ls)
app.command()(verify.verify)
app.command()(report.report)
app.command()(single.export)
app.command()(single.decode)
app.command()(look.failures)
app.command()(codecs.codecs)
app.command()(doctor.doctor)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.add_typer(weights.weights, name="weights")


def main() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
