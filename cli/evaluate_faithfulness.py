"""Whether a mask holds what makes the model and a recogniser see a thing: python -m concept_saliency.cli.evaluate_faithfulness

A thing's mask is painted anew by the tiny Flux itself, without a prompt (as in arXiv 2504.06800), and what is outside stays. Is the
thing then gone, for a recogniser (demo/recogniser.py) and in its presence? Against a mask of the same shape and size elsewhere, where
it covers the least of the thing. One thing a scene is asked about, together with all others that are and two that are not in it, where
the recogniser reads it in the picture. Intervals: 95%, scenes drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..core.metrics import bootstrapped
from ..core.saliency import Saliency
from ..demo.codec import decode, encode
from ..demo.pipeline import TinyFlux
from ..demo.recogniser import Recogniser, read, things_in
from . import painting
from .map_options import Case, current_maps, current_mask, one_pass

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
@painting.options(scenes=40)
def command(**asked) -> None:
    painting.report(figures, table, "the thing is read", STEPS, **asked)


if __name__ == "__main__":
    command()
