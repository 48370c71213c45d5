"""`python -m archiver.evaluation`: the command `archiver evaluate` by itself."""

import typer

from archiver.commands.evaluate import evaluate

if __name__ == "__main__":
    typer.run(evaluate)
