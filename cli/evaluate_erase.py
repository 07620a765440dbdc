"""Whether a thing is gone once its mask has been erased: python -m concept_saliency.cli.evaluate_erase

A thing's default mask is painted anew by the tiny Flux, what is outside stays: without a prompt, or with the ground's and guidance,
as in an inpainting workflow; and each of them with the mask looking at its surroundings alone (core/erase.py), as the node Erase
under Mask. Is the thing then gone for a recogniser (demo/recogniser.py), is nothing there but what else was, and how far is the mask
from the ground's colour, of 255? One thing a scene, where the recogniser reads it and the mask is not empty. Intervals: 95%, scenes
drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import torch
from torch.nn.functional import adaptive_max_pool2d

from ..core.metrics import bootstrapped
from ..demo.codec import decode
from ..demo.pipeline import CFG, TinyFlux
from ..demo.recogniser import Recogniser, read, things_in
from ..demo.world import prompt_of
from . import painting
from .map_options import Case, current_maps, current_mask, one_pass

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
@painting.options(scenes=60)
def command(**asked) -> None:
    painting.report(figures, table, "there is something to erase", STEPS, **asked)


if __name__ == "__main__":
    command()
