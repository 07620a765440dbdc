"""What the commands have in common that paint masks anew and ask a recogniser: python -m concept_saliency.cli.evaluate_..."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from tqdm import tqdm

from ..demo.pipeline import WEIGHTS, TinyFlux
from ..demo.recogniser import load_recogniser
from . import options as shared
from .evaluate_options import REPORTING, TUNING, WORLDS
from .map_options import case
from .place import Lines


def options(scenes: int) -> Callable[[Callable], Callable]:
    """The options of such a command: what `report` is told."""
    def added(command: Callable) -> Callable:
        for option in reversed((
                click.option("--weights", type=shared.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model."),
                click.option("--world", type=click.Choice(list(WORLDS)), default="plain", show_default=True),
                click.option("--scenes", type=click.IntRange(2), default=scenes, show_default=True),
                click.option("--tuning", is_flag=True,
                             help=f"Scenes to choose on, from seed {TUNING}; else those to report on, from {REPORTING}."),
                click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                             help="One line of JSON a scene; scenes that are in it are not painted again."))):
            command = option(command)
        return command

    return added


def report(figures: Callable, table: Callable[[list], Iterable[str]], read: str, steps: int, *, weights: Path, world: str, scenes: int,
           tuning: bool, out: Path | None) -> None:
    """Print the table of all scenes. figures(model, recogniser, case): what is found of one, {} for nothing; read: what is said of how
    many of them there is something. Raises click.UsageError for a file of something else."""
    model, recogniser, first = TinyFlux(weights), load_recogniser(), TUNING if tuning else REPORTING
    try:
        ledger = Lines(out, {"world": world, "weights": str(weights), "steps": steps}, "--out")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    done = {line["seed"] for line in ledger.lines}
    for seed in tqdm([s for s in range(first, first + scenes) if s not in done], unit="scene", file=sys.stderr):
        ledger.add({"seed": seed, "found": figures(model, recogniser, case(model, seed, WORLDS[world]))})
    found = [line["found"] for line in ledger.lines if first <= line["seed"] < first + scenes]
    click.echo(f"\n{world.capitalize()} world, {scenes} scenes, seeds {first} to {first + scenes - 1}; {read} in "
               f"{sum(map(bool, found))} of them.\n\n" + "\n".join(table([one for one in found if one])))
