"""Options that several commands share, and what they say in --help."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

from ..core.families import BLOCKS
from ..core.masks import METHODS
from .results import MapOptions

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

model = click.option("--model", "model_name", default="tiny", show_default=True, metavar="NAME",
                     help="'tiny' (bundled), a folder with a diffusers model, or a hub id; only a hub id uses the network.")
concepts = click.option("--concepts", required=True, help="What to look for, separated by commas; 'dog|puppy' are synonyms.")
contrast = click.option("--contrast", help="Rivals that are not shown.  [default: the model's own]")
blocks = click.option("--blocks", type=click.Choice(["auto", *BLOCKS]), default="auto", show_default=True,
                      help="How far concepts go: through the double-stream blocks (the paper's choice), or on through single-stream ones, "
                           "whose layers are numbered after them; auto: the model's own.")
seed = click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Picks the noise.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one line a picture, instead of file names.")


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def out(default: str) -> Callable:
    """--out FOLDER."""
    return click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(default), show_default=True,
                        help="Folder for the results.")


def stack(*decorators: Callable) -> Callable:
    """Several options as one decorator; --help lists them in this order."""
    def decorate(command: Callable) -> Callable:
        for one in reversed(decorators):
            command = one(command)
        return command
    return decorate


# How an existing picture is shown to the model
existing_pictures = stack(
    click.option("--caption", default="", help="A prompt that describes the pictures."),
    click.option("--noise-level", type=click.FloatRange(0, 1), help="Noise that is mixed in.  [default: the model's own]"),
    click.option("--samples", type=click.IntRange(1, 64), default=1, show_default=True,
                 help="Passes with different noise, averaged; the paper uses 5."),
    click.option("--megapixels", type=click.FloatRange(0), default=1.0, show_default=True,
                 help="Larger pictures are shown to the model reduced to about that size; 0: as they are. Results have their own size."))


def look(command: Callable) -> Callable:
    """How maps and masks are made of a recording: four options, collected into one argument `look`."""
    @wraps(command)
    def collected(*args, layers, temperature, mask, threshold, **others):
        return command(*args, look=MapOptions(layers, temperature, mask, threshold), **others)

    return stack(
        click.option("--layers", default="auto", show_default=True, help="For example: auto, all, 15-18, -4:"),
        click.option("--temperature", type=click.FloatRange(0), default=0.0,
                     help="Divides the scores before the softmax.  [default: the model's own]"),
        click.option("--mask", type=click.Choice(METHODS), default="auto", show_default=True, help="How masks are made."),
        click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
                     help="For the masks 'percentile' and 'absolute'."))(collected)
