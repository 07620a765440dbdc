"""Whether a thing is gone once its mask has been erased: python -m concept_saliency.cli.evaluate_erase

A thing's default mask is painted anew by the tiny Flux, what is outside stays: without a prompt, or with the ground's and guidance,
as in an inpainting workflow; and each of them with the mask looking at its surroundings alone (core/erase.py), as the node Erase
under Mask. Is the thing then gone for a recogniser (demo/recogniser.py), is nothing there but what else was, and how far is the mask
from the ground's colour, of 255? One thing a scene, where the recogniser reads it and the mask is not empty. Intervals: 95%, scenes
drawn again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch.nn.functional import adaptive_max_pool2d
from tqdm import tqdm

from ..core.metrics import bootstrapped
from ..demo.codec import decode
from ..demo.pipeline import CFG, WEIGHTS, TinyFlux
from ..demo.recogniser import Recogniser, load_recogniser, read, things_in
from ..demo.world import prompt_of
from . import options as shared
from .evaluate_options import REPORTING, TUNING, WORLDS
from .map_options import Case, case, current_maps, current_mask, one_pass
from .place import Lines

STEPS = 12
WAYS = {"painted anew": (False, False), "painted anew, the ground's prompt": (False, True),
        "erased": (True, False), "erased, the ground's prompt": (True, True)}
COLUMNS = ("gone", "nothing else there", "off the ground's colour")


def figures(model: TinyFlux, recogniser: Recogniser, one: Case) -> dict[str, list[float]]:
    """What is found of one scene: way -> figures, a column each; {} where there is nothing to erase."""
    thing, truth = next(iter(one.things.items()))
    mask = current_mask(current_maps(one_pass(model, one)["output"]), thing, one.image)
    if thing not in things_in(read(recogniser, decode(model.codec, one.latents))[0]) or not mask.any():
        return {}
    inside = adaptive_max_pool2d(mask[None].float(), one.latents.shape[-2:]) > 0
    others = torch.stack(list(one.things.values())).any(dim=0)
    ground = one.image[0][~others].median(dim=0).values
    bare, found = mask & (truth | ~others), {}
    for way, (erase, told) in WAYS.items():
        prompts, cfg = ([prompt_of([], one.ground)], CFG) if told else (None, 1.0)
        picture = model.inpaint(one.latents, inside, [one.seed], STEPS, prompts, cfg, erase)
        there = set(things_in(read(recogniser, picture)[0]))
        off = 255 * (picture[0].movedim(0, -1)[bare] - ground).abs().mean()
        found[way] = [float(thing not in there), float(there <= set(one.things) - {thing}), float(off)]
    return found


def table(scenes: list[dict[str, list[float]]]) -> Iterator[str]:
    """The lines of a markdown table, a way a line."""
    yield "| | passes a step | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for way, (_, told) in WAYS.items():
        cells = [bootstrapped([[scene[way][number]] for scene in scenes]) for number, _ in enumerate(COLUMNS)]
        yield f"| {way} | {2 if told else 1} | " + " | ".join("{:.3f} ({:.3f} to {:.3f})".format(*cell) for cell in cells) + " |"


@click.command(help=__doc__)
@click.option("--weights", type=shared.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--world", type=click.Choice(list(WORLDS)), default="plain", show_default=True)
@click.option("--scenes", type=click.IntRange(2), default=60, show_default=True)
@click.option("--tuning", is_flag=True, help=f"Scenes to choose on, from seed {TUNING}; else those to report on, from {REPORTING}.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="One line of JSON a scene; scenes that are in it are not painted again.")
def command(weights: Path, world: str, scenes: int, tuning: bool, out: Path | None) -> None:
    model, recogniser, first = TinyFlux(weights), load_recogniser(), TUNING if tuning else REPORTING
    try:
        ledger = Lines(out, {"world": world, "weights": str(weights), "steps": STEPS}, "--out")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    done = {line["seed"] for line in ledger.lines}
    for seed in tqdm([s for s in range(first, first + scenes) if s not in done], unit="scene", file=sys.stderr):
        ledger.add({"seed": seed, "found": figures(model, recogniser, case(model, seed, WORLDS[world]))})
    found = [line["found"] for line in ledger.lines if first <= line["seed"] < first + scenes]
    click.echo(f"\n{world.capitalize()} world, {scenes} scenes, seeds {first} to {first + scenes - 1}; there is something to erase in "
               f"{sum(map(bool, found))} of them.\n\n" + "\n".join(table([one for one in found if one])))


if __name__ == "__main__":
    command()
