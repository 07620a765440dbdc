"""Whether a mask holds what makes the model and a recogniser see a thing: python -m concept_saliency.cli.evaluate_faithfulness

A thing's mask is painted anew by the tiny Flux itself, without a prompt (as in arXiv 2504.06800), and what is outside stays. Is the
thing then gone, for a recogniser (demo/recogniser.py) and in its presence? Against a mask of the same shape and size elsewhere, where
it covers the least of the thing. One thing a scene is asked about, together with all others that are and two that are not in it, where
the recogniser reads it in the picture. Intervals: 95%, scenes drawn again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d
from tqdm import tqdm

from ..core.metrics import bootstrapped
from ..core.saliency import Saliency
from ..demo.codec import decode, encode
from ..demo.pipeline import WEIGHTS, TinyFlux
from ..demo.recogniser import Recogniser, load_recogniser, read, things_in
from . import options as shared
from .evaluate_options import REPORTING, TUNING, WORLDS
from .map_options import Case, case, current_maps, current_mask, one_pass
from .place import Lines

WAYS = {"auto": ("auto", True), "the paper's mask": ("mean", False), "the thing itself": None}
STEPS = 6
COLUMNS = {"share": "share of the picture", "gone": "gone", "gone elsewhere": "gone, painted elsewhere", "more": "more often gone",
           "presence": "presence lost", "presence elsewhere": "presence lost, painted elsewhere"}


def elsewhere(inside: Tensor, thing: Tensor) -> Tensor:
    """The mask h x w bool, moved (around the picture's edges, where need be) to where it covers the least of the thing h x w bool."""
    covered = torch.fft.ifft2(torch.fft.fft2(inside.float()).conj() * torch.fft.fft2(thing.float())).real.round()
    return inside.roll(divmod(int(covered.argmin()), inside.shape[1]), dims=(0, 1))


def figures(model: TinyFlux, recogniser: Recogniser, one: Case) -> dict:
    """What is found of one scene: way -> figures, a column each; {} where the recogniser does not read the thing in the first place."""
    thing, truth = next(iter(one.things.items()))
    if thing not in things_in(read(recogniser, decode(model.codec, one.latents))[0]):
        return {}

    def maps(case: Case) -> Saliency:
        return current_maps(one_pass(model, case)["output"])

    before, found = maps(one), {}
    cells = one.latents.shape[-2:]
    of_thing = adaptive_max_pool2d(truth[None].float(), cells)[0] > 0
    for way, how in WAYS.items():
        mask = truth if how is None else current_mask(before, thing, one.image, *how)
        inside = adaptive_max_pool2d(mask[None].float(), cells)[0] > 0
        found[way] = {"share": float(inside.float().mean())}
        for place, painted in {"": inside, " elsewhere": elsewhere(inside, of_thing)}.items():
            picture = model.inpaint(one.latents, painted[None], [one.seed], STEPS)
            after = maps(one._replace(latents=encode(model.codec, picture)))
            found[way]["gone" + place] = float(thing not in things_in(read(recogniser, picture)[0]))
            found[way]["presence" + place] = float((before.presence - after.presence)[0, before.index(thing)])
        found[way]["more"] = found[way]["gone"] - found[way]["gone elsewhere"]
    return found


def table(scenes: list[dict]) -> Iterator[str]:
    """The lines of a markdown table, a way a line."""
    yield "| painted anew | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for way in WAYS:
        cells = ["{:.3f} ({:.3f} to {:.3f})".format(*bootstrapped([[scene[way][column]] for scene in scenes])) for column in COLUMNS]
        yield f"| {way} | " + " | ".join(cells) + " |"


@click.command(help=__doc__)
@click.option("--weights", type=shared.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--world", type=click.Choice(list(WORLDS)), default="plain", show_default=True)
@click.option("--scenes", type=click.IntRange(2), default=40, show_default=True)
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
    click.echo(f"\n{world.capitalize()} world, {scenes} scenes, seeds {first} to {first + scenes - 1}; the thing is read in "
               f"{sum(map(bool, found))} of them.\n\n" + "\n".join(table([one for one in found if one])))


if __name__ == "__main__":
    command()
