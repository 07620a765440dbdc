"""Live regions on the tiny world: python -m concept_saliency.cli.evaluate_regions

"X and Y" is drawn, and where X takes shape, a prompt with Z takes over in the same run. Is Z then where X would have stood, is X gone,
and is Y as it would have been? Against the same with the mask of a full run before it (two runs), and against the plain prompt
"Z and Y". Judged by a recogniser (demo/recogniser.py); no prompt is chosen. Seconds are those of one CPU thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..core.live_region import RegionRule
from ..core.masks import Shaping
from ..core.metrics import bootstrapped, iou
from ..demo.pipeline import STEPS, TinyFlux
from ..demo.recogniser import CLASSES, Recogniser, load_recogniser, read, things_in
from ..demo.world import GROUNDS, THINGS, prompt_of
from .evaluate import HELD_OUT
from .place import Lines

SAME_PLACE, UNTOUCHED = 0.5, 0.8  # IoU of the boxes of Z and X; IoU of Y's masks
WAYS = {"live": "live region, one run", "two runs": "mask of a full run before, two runs", "plain": "plain prompt \"Z and Y\", one run"}
COLUMNS = {"there": "Z in X's place", "gone": "X gone", "kept": "Y untouched", "all": "all three, and nothing else"}


def asked(number: int) -> tuple[str, str, str, str]:
    """X, Y, Z and the ground of one prompt."""
    rng = np.random.default_rng([15, number])
    x, y, z = map(str, rng.choice(list(THINGS), 3, replace=False))
    return x, y, z, str(rng.choice(list(GROUNDS)))


def box(mask: Tensor) -> Tensor:
    """The smallest upright box around a mask H x W, as a mask."""
    return mask.any(dim=1, keepdim=True) & mask.any(dim=0, keepdim=True)


def judged(labels: Tensor, before: Tensor, x: str, y: str, z: str) -> dict[str, bool]:
    """What became of X, Y and Z. labels, before: classes H x W of the picture and of the plain "X and Y"."""
    now, then = ({thing: one == CLASSES.index(thing) for thing in (x, y, z)} for one in (labels, before))
    things = things_in(labels)
    found = {"there": z in things and iou(box(now[z]), box(then[x])) >= SAME_PLACE, "gone": x not in things,
             "kept": y in things and iou(now[y], then[y]) >= UNTOUCHED}
    return {**found, "all": all(found.values()) and things == {y, z}}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the seconds of CPU time it took."""
    start = time.process_time()
    return work(), time.process_time() - start


def one_prompt(model: TinyFlux, recogniser: Recogniser, number: int, rule: RegionRule, start: float, steps: int, shift: float) -> dict:
    """One line of results. both: whether the plain "X and Y" shows exactly these; where it does not, there is nothing to tell."""
    x, y, z, ground = asked(number)
    prompt, wanted, seeds = prompt_of((x, y), ground), prompt_of((z, y), ground), [HELD_OUT + number]
    grid = (32, 32)
    rivals = ", ".join([y, *GROUNDS])

    def live(weights: Tensor | None = None) -> tuple:
        return model.repaint([prompt], [wanted], seeds, x, rivals, rule, start, weights, steps=steps, shift=shift)

    (before, recording), seconds = timed(lambda: model.generate(prompt, x, rivals, seeds[0], steps=steps, shift=shift))
    labels = read(recogniser, before)[0]
    result = {"number": number, "prompt": prompt, "z": z, "both": things_in(labels) == {x, y}}
    if not result["both"]:
        return result
    region = rule.region(recording, grid)
    one, live_seconds = timed(live)
    two, again = timed(lambda: live(region.weights))
    plain, plain_seconds = timed(lambda: model.draw([wanted], seeds, steps=steps, shift=shift))
    result |= {"presence": float(one[1].presence[0]), "empty": not bool(one[1].weights.any()),
               "mask IoU": iou(one[1].weights[0] > 0.5, region.weights[0] > 0.5),
               "seconds": {"live": live_seconds, "two runs": seconds + again, "plain": plain_seconds}}
    pictures = {"live": one[0], "two runs": two[0], "plain": plain}
    return result | {way: judged(read(recogniser, pictures[way])[0], labels, x, y, z) for way in WAYS}


def table(results: list[dict]) -> Iterator[str]:
    """Lines of markdown: of all prompts, of those whose plain picture shows what was asked for."""
    shown = [result for result in results if result["both"]]
    yield (f"{len(results)} prompts; the plain \"X and Y\" shows exactly these two in {len(shown)}, of which the table is. The live mask "
           f"was empty in {sum(r['empty'] for r in shown)} of them; where it was not, its IoU with the full run's has a median of "
           f"{np.median([r['mask IoU'] for r in shown if not r['empty']] or [0]):.2f}.")
    yield from ("", f"| way | {' | '.join(COLUMNS.values())} | seconds |", "|---" * (len(COLUMNS) + 2) + "|")
    for way, title in WAYS.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*bootstrapped([[float(r[way][column])] for r in shown])) for column in COLUMNS]
        yield f"| {title} | {' | '.join(cells)} | {np.median([r['seconds'][way] for r in shown]):.1f} |"


@click.command(help=__doc__)
@click.option("--prompts", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first prompt; its seed follows from it.")
@click.option("--steps", type=click.IntRange(4), default=STEPS, show_default=True, help="Steps of every run.")
@click.option("--shift", type=click.FloatRange(1), default=6.0, show_default=True,
              help="Of the noise levels, as ComfyUI's ModelSamplingSD3; this model decides what it draws above 0.95.")
@click.option("--start", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="When the region begins.")
@click.option("--grow", type=int, default=0, show_default=True, help="Pixels by which the region's edge moves out.")
@click.option("--feather", type=click.IntRange(0), default=0, show_default=True, help="Pixels over which it fades.")
@click.option("--min-presence", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Below it nothing is done.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
              help="One line of JSON a prompt; prompts that are in it are not drawn again.")
def command(prompts: int, first: int, steps: int, shift: float, start: float, grow: int, feather: int, min_presence: float,
            out: Path) -> None:
    settings = {"steps": steps, "shift": shift, "start": start, "grow": grow, "feather": feather, "min_presence": min_presence}
    try:
        ledger = Lines(out, settings, "--out")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    model, recogniser, rule = TinyFlux(), load_recogniser(), RegionRule(shaping=Shaping(grow, feather), min_presence=min_presence)
    torch.set_num_threads(1)
    done = {result["number"] for result in ledger.lines}
    for number in tqdm([n for n in range(first, first + prompts) if n not in done], unit="prompt", file=sys.stderr):
        ledger.add(one_prompt(model, recogniser, number, rule, start, steps, shift))
    results = [result for result in ledger.lines if first <= result["number"] < first + prompts]
    for line in table(results):
        click.echo(line)


if __name__ == "__main__":
    command()
