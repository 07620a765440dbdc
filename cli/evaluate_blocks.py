"""How far concept tokens should go, and what "auto" means for the tiny Flux: python -m concept_saliency.cli.evaluate_blocks

For the double-stream blocks alone, with the first single-stream block, and with all of them, and for each space, the
setting whose default masks are best is chosen on scenes of its own and reported on others. --write makes the best in
output space what "auto" means (defaults.json beside the weights).
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from ..core import masks
from ..core.families import BLOCKS, Defaults
from ..core.metrics import bootstrapped, bootstrapped_auroc, iou
from ..core.recording import SPACES
from ..core.saliency import saliency
from ..demo.codec import encode
from ..demo.pipeline import WEIGHTS, TinyFlux
from ..demo.world import THINGS
from . import options
from .evaluate import HELD_OUT, written
from .evaluate_things import Picture, scene
from .measure import Setting

NOISE_LEVELS, TEMPERATURES = (0.2, 0.3, 0.45, 0.6), (1.0, 3.0, 10.0, 30.0)


@dataclass
class Figures:
    """What was found with one setting, a list a scene. ious: of the default mask of each thing. precisions: AP of its own
    plane. presences: of every thing there is in the world, and whether it is in the scene."""

    ious: list[list[float]] = field(default_factory=list)
    precisions: list[list[float]] = field(default_factory=list)
    presences: list[list[tuple[bool, float]]] = field(default_factory=list)


def measured(model: TinyFlux, pictures: Sequence[Picture], settings: Iterable[Setting], choosing: bool = False) -> dict[Setting, Figures]:
    """The things of a picture are asked for together, against every ground; all things of the world together for presence.
    choosing: the masks alone."""
    from sklearn.metrics import average_precision_score

    passes = sorted(settings, key=lambda s: s.noise_level)
    found = {setting: Figures() for setting in passes}
    for picture in tqdm([p for p in pictures if p.truth], desc="choosing" if choosing else "reporting", unit="scene", file=sys.stderr):
        latents, guide = encode(model.codec, picture.image), picture.image.permute(0, 2, 3, 1)
        for level, group in itertools.groupby(passes, key=lambda s: s.noise_level):
            record = partial(model.record_latents, latents, noise_level=level, seed=picture.seed, cross_attention=True, blocks="all")
            asked, everything = record(", ".join(picture.truth)), None if choosing else record(", ".join(THINGS))
            for s in group:
                maps = saliency(asked[s.space], s.layers, temperature=s.temperature)
                found[s].ious.append([iou(masks.mask(maps, thing, image=guide)[0] > 0.5, truth) for thing, truth in picture.truth.items()])
                if everything is None:
                    continue
                planes = dict(zip(maps.concepts, masks.soft_masks(maps)[0].flatten(1).numpy()))
                found[s].precisions.append([float(average_precision_score(truth.flatten().numpy(), planes[thing]))
                                            for thing, truth in picture.truth.items()])
                presences = saliency(everything[s.space], s.layers, temperature=s.temperature).presence[0].tolist()
                found[s].presences.append([(thing in picture.truth, value) for thing, value in zip(THINGS, presences)])
    return found


def choices(double: int, singles: int) -> list[str]:
    """The ranges of layers that core.families.Defaults can say, of `double` double-stream blocks and `singles` after them."""
    ends = range(double) if not singles else (double - 1,)
    return [f"{first}-{last + singles}" for last in ends for first in range(last + 1)]


def best_of(figures: dict[Setting, Figures], space: str, layers: Sequence[str]) -> Setting:
    """The setting in a space with the best masks among these layers."""
    return max((s for s in figures if s.space == space and s.layers in layers), key=lambda s: bootstrapped(figures[s].ious)[0])


def defaults_of(setting: Setting, double: int, before: Defaults) -> Defaults:
    """A setting as what "auto" means; from which step on is not measured here and stays as it was."""
    first, last = map(int, setting.layers.split("-"))
    singles = max(0, last - (double - 1))
    return replace(before, first_layer=first / (double - 1), last_layer=(last - singles) / (double - 1), temperature=setting.temperature,
                   singles=singles)


def table(rows: dict[tuple[str, str], Setting], found: dict[Setting, Figures]) -> Iterator[str]:
    """The lines of a markdown table. rows: by blocks and space."""
    yield "| blocks | space | layers | noise | temperature | IoU of a thing | beside double | median | AP of a thing | presence AUROC |"
    yield "|---" * 10 + "|"
    for (blocks, space), s in rows.items():
        ious, plain = found[s].ious, found[rows[next(iter(BLOCKS)), space]].ious
        more = bootstrapped([[a - b for a, b in zip(*pair)] for pair in zip(ious, plain)])
        beside = "" if ious is plain else f"{more[0]:+.3f} ({more[1]:+.3f} to {more[2]:+.3f})"
        yield (f"| {blocks} | {space} | {s.layers} | {s.noise_level:g} | {s.temperature:g} | {written(*bootstrapped(ious))} | {beside} | "
               f"{np.median([v for scene in ious for v in scene]):.3f} | {written(*bootstrapped(found[s].precisions))} | "
               f"{written(*bootstrapped_auroc(found[s].presences))} |")


@click.command(help=__doc__)
@click.option("--weights", type=options.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--scenes", type=click.IntRange(2), default=100, show_default=True, help="Scenes to report on.")
@click.option("--tune", type=click.IntRange(1), default=40, show_default=True, help="Other scenes, to choose settings on.")
@click.option("--write", "writing", is_flag=True, help="Write the best setting in output space to defaults.json beside the weights.")
def command(weights: Path, scenes: int, tune: int, writing: bool) -> None:
    model = TinyFlux(weights)
    double, most = len(model.flux.double_blocks), len(model.flux.single_blocks)
    layers = {blocks: choices(double, most if singles is None else singles) for blocks, singles in BLOCKS.items()}
    settings = [Setting(level, space, which, temperature) for level in NOISE_LEVELS for space in SPACES
                for which in dict.fromkeys(itertools.chain.from_iterable(layers.values())) for temperature in TEMPERATURES]
    tuned = measured(model, [scene(seed) for seed in range(HELD_OUT, HELD_OUT + tune)], settings, choosing=True)
    rows = {(blocks, space): best_of(tuned, space, layers[blocks]) for space in SPACES for blocks in BLOCKS}
    seeds = range(HELD_OUT + tune, HELD_OUT + tune + scenes)
    found = measured(model, [scene(seed) for seed in seeds], set(rows.values()))
    click.echo(f"{scenes} held-out scenes, seeds {seeds[0]} to {seeds[-1]}; settings chosen on the {tune} before them by the mean IoU of "
               "the default mask\n")
    click.echo("\n".join(table(rows, found)))
    best = max((rows[blocks, SPACES[0]] for blocks in BLOCKS), key=lambda s: bootstrapped(tuned[s].ious)[0])
    click.echo(f"\nBest in output space on the {tune}: layers {best.layers}, noise {best.noise_level:g}, temperature {best.temperature:g}")
    if writing:
        made = {"defaults": asdict(defaults_of(best, double, model.defaults)), "noise_level": best.noise_level}
        (weights / "defaults.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    command()
