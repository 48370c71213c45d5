"""`archiver train`: photographs -> weights."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from archiver.commands.options import AsJson, location, named_values
from archiver.console import complain, one_line, print_json_lines, say, stderr


def train(
    recipe: Annotated[str, typer.Argument(help="Whose networks: layered, gan, perco-tiny, ...")],
    source: Annotated[str, typer.Argument(help="Photographs: a folder or bucket.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log, samples and the weights.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="The last step; the recipe's own by default.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop training after so long; what is fitted afterwards takes minutes more, for layered hours.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Weights to build on, in place of those that come with the program."
        ),
    ] = None,
    as_json: AsJson = False,
    source_options: Annotated[
        list[str] | None, typer.Option("--source-option", metavar="NAME=VALUE", help="As for encode.")
    ] = None,
) -> None:
    """Train a codec's networks. Run the same command again to go on, exactly where it stopped.

    After the last step coding tables, and for layered styles, are fitted to photographs: minutes to hours.
    """
    import torch

    from archiver.training.loop import train as advance
    from archiver.training.ranks import own_device
    from archiver.training.recipe import export, start
    from archiver.training.recipes import find_recipe
    from archiver.weights import how_to_use

    try:
        torch.empty(0, device=own_device(torch.device(device)))
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        raise ValueError(
            f"--device {device!r}: {one_line(str(error))}; expected one of this machine's, as cpu"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = find_recipe(recipe)
    photographs = location(source, source_options, "--source-option")
    parts = {name: Path(file) for name, file in named_values(part, "--part").items()}
    run = start(chosen, photographs, out, torch.device(device), steps, parts)
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    told = not run.ranks.rank  # the first of several ranks speaks for all
    shown = told and not as_json and stderr().is_terminal
    with Progress(*columns, console=stderr(), disable=not shown) as bar:
        line = bar.add_task("", total=run.schedule.steps)
        for progress in advance(run, minutes):
            if as_json and told:
                print_json_lines([progress.told()])
            terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
            bar.update(line, completed=progress.step, description=terms)
    run.ranks.leave()
    if not told:
        return
    if shown:
        complain(f"archiver train: trained to step {run.step:,}; what is fitted afterwards takes a while")
    file = export(chosen, run)
    if as_json:
        print_json_lines([{"kind": "weights", "step": run.step, "file": str(file)}])
    else:
        say(f"{run.step:,} steps; the weights are in {file}")
        if command := how_to_use(chosen.name, file, parts):
            say(f"Use them: {command}")
