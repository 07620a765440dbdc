"""How well single things are told apart, twins and four of a kind: python -m concept_saliency.cli.evaluate_instances

A concept's part of the picture (core.regions.labels) is split into its islands, and into core.regions.instances. For every thing:
whether exactly as many are found as there are; and the IoU of each single one with what is found for it (0 where nothing is), in the
pairs whose sum is largest. Differences are those of the same scenes, with a 95% interval.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

import click
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from ..core import regions
from ..core.metrics import bootstrapped, iou
from ..core.saliency import saliency
from ..demo.hard_world import KINDS, HardScene, make_hard_scene
from ..demo.pipeline import TinyFlux
from .evaluate_options import REPORTING, TUNING
from .map_options import case, one_pass

WAYS = {"islands": regions.islands, "instances": regions.instances}
SEVERAL, ONE = "of several: exactly as many", "of one: exactly one"
METRICS = (SEVERAL, ONE, "IoU of each of several")


def matched(found: Sequence[Tensor], there: Sequence[Tensor]) -> list[float]:
    """For each mask H x W bool of what is there the IoU of the one found for it, 0 where there is none."""
    table = np.array([[iou(one, truth) for one in found] for truth in there]).reshape(len(there), len(found))
    rows, columns = linear_sum_assignment(table, maximize=True)
    return [float(table[row, columns[rows == row]].sum()) for row in range(len(there))]


def placed(pieces: Sequence[tuple[dict[str, int], Tensor]], size: Sequence[int]) -> list[Tensor]:
    """What regions.islands and regions.instances give, each on the whole picture, H x W bool."""
    whole = []
    for box, own in pieces:
        whole.append(torch.zeros(*size, dtype=torch.bool))
        whole[-1][box["y"]:box["y"] + box["height"], box["x"]:box["x"] + box["width"]] = own
    return whole


def labels(model: TinyFlux, seed: int) -> Tensor:
    """Whose every pixel is, H x W, by the model: the scene's things are rows 0 and 1."""
    asked = case(model, seed, hard=True)
    return regions.labels(saliency(one_pass(model, asked)["output"]), asked.image)[0]


def figures(label: Tensor, scene: HardScene) -> dict[tuple[str, str], list[float]]:
    """(way, metric) -> the values of one scene's things."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row, thing in enumerate(scene.things):
        there = [torch.from_numpy(mask) for name, mask in scene.instances if name == thing]
        for way, split in WAYS.items():
            pieces = placed(split((label == row).float()), label.shape)
            found[way, SEVERAL if len(there) > 1 else ONE].append(float(len(pieces) == len(there)))
            if len(there) > 1:
                found[way, METRICS[2]] += matched(pieces, there)
    return found


def table(kind: str, scenes: Sequence[dict[tuple[str, str], list[float]]]) -> Iterator[str]:
    """The lines of a markdown table."""
    yield f"| {kind}, {len(scenes)} scenes | " + " | ".join(METRICS) + " |"
    yield "|---" * (len(METRICS) + 1) + "|"
    first = next(iter(WAYS))
    for way in WAYS:
        cells = []
        for metric in METRICS:
            value, low, high = bootstrapped([scene[way, metric] for scene in scenes])
            more = bootstrapped([[a - b for a, b in zip(scene[way, metric], scene[first, metric])] for scene in scenes])
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})" if way == first else
                         f"{value:.3f} ({more[0]:+.3f}: {more[1]:+.3f} to {more[2]:+.3f})")
        yield f"| {way} | " + " | ".join(cells) + " |"


@click.command(help=__doc__)
@click.option("--scenes", type=click.IntRange(2), default=50, show_default=True, help="Of each of the two kinds.")
@click.option("--tuning", is_flag=True, help=f"Scenes to choose on, from seed {TUNING}; else those to report on, from {REPORTING}.")
def command(scenes: int, tuning: bool) -> None:
    model, first = TinyFlux(), TUNING if tuning else REPORTING
    for kind in ("twins", "many"):
        seeds = range(first + KINDS.index(kind), first + len(KINDS) * scenes, len(KINDS))
        found = [figures(labels(model, seed), make_hard_scene(seed)) for seed in tqdm(seeds, desc=kind, unit="scene", file=sys.stderr)]
        click.echo("\n" + "\n".join(table(kind, found)))


if __name__ == "__main__":
    command()
