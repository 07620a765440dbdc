"""What an artist gets from each method of Saliency to Mask, on the tiny world: python -m concept_saliency.cli.evaluate_methods

The things of a held-out scene are asked for together with two things that are not in it, against every ground. For what
is there the IoU of its mask counts, for what is not there whether the mask is empty. The rule of "auto" was chosen on
other scenes (seeds 1200000 to 1200099).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
import numpy as np
import torch
from tqdm import tqdm

from ..core import masks
from ..core.metrics import boundary_iou
from ..core.saliency import saliency
from ..demo.pipeline import TinyFlux
from ..demo.world import CONTRAST, THINGS, make_scene

FIRST_SEED = 1_300_000  # training and choosing drew their scenes from others
ABSENT = 2


def figures(model: TinyFlux, seeds: Iterable[int], layers: str, temperature: float) -> dict[tuple[str, bool], tuple[list, list, list]]:
    """(method, refined) -> IoU and boundary IoU of every thing that is there, and whether the mask is empty of every one that is not."""
    found: dict[tuple[str, bool], tuple[list, list, list]] = {
        (method, refined): ([], [], []) for method in masks.METHODS if method != "soft" for refined in (False, True)}
    for seed in tqdm(list(seeds), unit="scene"):
        scene, rng = make_scene(seed), np.random.default_rng(seed)
        absent = rng.choice([thing for thing in THINGS if thing not in scene.things], ABSENT, replace=False)
        image = torch.from_numpy(scene.image.copy())[None].float() / 255
        recording = model.record(image.movedim(-1, 1), ", ".join([*scene.things, *absent]), CONTRAST, seed=seed)["output"]
        maps = saliency(recording, layers, temperature=temperature)
        for (method, refined), (ious, edges, empty) in found.items():
            for thing in maps.concepts:
                mask = masks.mask(maps, thing, method, image=image if refined else None)[0].bool()
                if thing in scene.masks:
                    truth = torch.from_numpy(scene.masks[thing])
                    ious.append(float((mask & truth).sum() / (mask | truth).sum()))
                    edges.append(boundary_iou(mask, truth))
                else:
                    empty.append(not mask.any())
    return found


def table(found: dict[tuple[str, bool], tuple[list, list, list]]) -> Iterator[str]:
    """The lines of a markdown table."""
    yield "| method | refined | mean IoU | median IoU | boundary IoU | missed | empty where absent |"
    yield "|---" * 7 + "|"
    for (method, refined), (ious, edges, empty) in found.items():
        missed = np.mean(np.array(ious) == 0)
        yield (f"| {method} | {'yes' if refined else 'no'} | {np.mean(ious):.3f} | {np.median(ious):.3f} | {np.mean(edges):.3f} | "
               f"{missed:.0%} | {np.mean(empty):.0%} |")


@click.command(help=__doc__)
@click.option("--scenes", type=click.IntRange(1), default=100, show_default=True)
@click.option("--layers", default="auto", show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: the model's own.")
def command(scenes: int, layers: str, temperature: float) -> None:
    click.echo("\n".join(table(figures(TinyFlux(), range(FIRST_SEED, FIRST_SEED + scenes), layers, temperature))))


if __name__ == "__main__":
    command()
