"""Ways to make maps and masks, against the current one on the same scenes: python -m concept_saliency.cli.evaluate_options

Scenes of the plain world (demo/world.py) and the hard one (demo/hard_world.py); each scene's things are asked for together with
two that are not in it, against every ground. Every difference to the current way is that of the same scenes, with a 95% interval
(scenes drawn again, 1000 times). Options stand in cli/map_options.py. What is chosen is chosen with --tuning, on other scenes.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from ..core import masks
from ..core.metrics import bootstrapped, boundary_iou, iou, leakage
from ..core.recording import SPACES
from ..core.saliency import Saliency
from ..demo.pipeline import WEIGHTS, TinyFlux
from . import options as shared
from .map_options import OPTIONS, Case, Option, case

TUNING, REPORTING = 1_400_000, 1_500_000  # first seeds; training, and choosing before, drew their scenes from others
WORLDS = {"plain": False, "hard": True}
MEANS = ("IoU", "missed", "boundary IoU", "AP", "leakage", "empty where absent")
Figures = dict[str, list]  # metric -> a list of values for every scene; "presence" -> of (there, presence)


def map_figures(maps: Saliency, case: Case) -> Figures:
    """What one scene's maps are worth: a value for every thing."""
    from sklearn.metrics import average_precision_score

    found: Figures = defaultdict(list)
    planes = dict(zip(maps.concepts, masks.soft_masks(maps)[0]))
    for thing, truth in case.things.items():
        found["AP"].append(float(average_precision_score(truth.flatten().numpy(), planes[thing].flatten().numpy())))
        others = [there for other, there in case.things.items() if other != thing]
        if others:
            found["leakage"].append(leakage(planes[thing], torch.stack(others).any(dim=0)))
    found["presence"] = [(word in case.things, float(value)) for word, value in zip(maps.concepts, maps.presence[0])]
    return found


def mask_figures(maps: Saliency, case: Case, option: Option) -> Figures:
    """What one scene's masks are worth: a value for every thing, or every absent one."""
    found: Figures = defaultdict(list)
    for thing, truth in case.things.items():
        mask = option.mask(maps, thing, case.image)
        found["IoU"].append(iou(mask, truth))
        found["missed"].append(float(not (mask & truth).any()))
        found["boundary IoU"].append(boundary_iou(mask, truth))
    found["empty where absent"] = [float(not option.mask(maps, word, case.image).any()) for word in case.absent]
    return found


def measured(model: TinyFlux, cases: Iterable[Case], options: dict[str, Option]) -> tuple[dict[tuple[str, str], list[Figures]], list[str]]:
    """(space, option's name) -> the figures of every scene, and the scenes' kinds. Passes and maps are computed once for all options
    that have them in common."""
    found: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    kinds = []
    for one in tqdm(cases, desc="measuring", unit="scene", file=sys.stderr):
        kinds.append(one.kind)
        recordings = {record: record(model, one) for record in dict.fromkeys(option.record for option in options.values())}
        for space in SPACES:
            made = {way: way[1](recordings[way[0]][space]) for way in dict.fromkeys((o.record, o.maps) for o in options.values())}
            worth = {way: map_figures(maps, one) for way, maps in made.items()}
            for name, option in options.items():
                way = option.record, option.maps
                found[space, name].append({**worth[way], **mask_figures(made[way], one, option)})
    return dict(found), kinds


def auroc(scenes: Iterable[Figures]) -> float:
    """How well presence tells what is there from what is not: area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*zip(*itertools.chain.from_iterable(scene["presence"] for scene in scenes))))


def beside(scenes: Sequence[Figures], reference: Sequence[Figures], metric: str) -> tuple[float, float, float, float]:
    """The value, its difference to the reference's on the same scenes, and that difference's interval."""
    if metric == "presence AUROC":
        rng = np.random.default_rng(0)
        drawn = []
        for pick in rng.integers(len(scenes), size=(200, len(scenes))):
            drawn.append(auroc(scenes[i] for i in pick) - auroc(reference[i] for i in pick))
        value = auroc(scenes)
        low, high = np.quantile(drawn, (0.025, 0.975))
        return value, value - auroc(reference), float(low), float(high)
    values = [scene[metric] for scene in scenes if metric in scene]  # one thing alone leaks into no other
    differences = [[a - b for a, b in zip(scene[metric], plain[metric])] for scene, plain in zip(scenes, reference) if metric in scene]
    return (bootstrapped(values)[0], *bootstrapped(differences))


def table(found: dict[tuple[str, str], list[Figures]], space: str) -> Iterator[str]:
    """The lines of a markdown table, an option a line; the first is what the others are compared with."""
    metrics = (*MEANS, "presence AUROC")
    yield f"| {space}: option | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    names = [name for at, name in found if at == space]
    for name in names:
        cells = []
        for metric in metrics:
            value, more, low, high = beside(found[space, name], found[space, names[0]], metric)
            cells.append(f"{value:.3f}" + ("" if name == names[0] else f" ({more:+.3f}: {low:+.3f} to {high:+.3f})"))
        yield f"| {name} | " + " | ".join(cells) + " |"


def kinds_table(found: dict[tuple[str, str], list[Figures]], kinds: Sequence[str], space: str) -> Iterator[str]:
    """Mean IoU of a thing by the scene's kind."""
    all_kinds = list(dict.fromkeys(kinds))
    yield f"| {space}: IoU by kind | " + " | ".join(all_kinds) + " |"
    yield "|---" * (len(all_kinds) + 1) + "|"
    for name, scenes in ((name, scenes) for (at, name), scenes in found.items() if at == space):
        means = [np.mean([value for scene, k in zip(scenes, kinds) if k == kind for value in scene["IoU"]]) for kind in all_kinds]
        yield f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[OPTION]...")
@click.option("--weights", type=shared.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--world", "worlds", type=click.Choice(list(WORLDS)), multiple=True, help="One of both; else both.")
@click.option("--scenes", type=click.IntRange(2), default=100, show_default=True)
@click.option("--tuning", is_flag=True, help=f"Scenes to choose on, from seed {TUNING}; else those to report on, from {REPORTING}.")
def command(names: tuple[str, ...], weights: Path, worlds: tuple[str, ...], scenes: int, tuning: bool) -> None:
    if unknown := [name for name in names if name not in OPTIONS]:
        raise click.UsageError(f"There is no option {', '.join(map(repr, unknown))}. Known: {', '.join(OPTIONS)}.")
    reference = next(iter(OPTIONS))
    chosen = {name: OPTIONS[name] for name in dict.fromkeys((reference, *(names or OPTIONS)))}
    model, first = TinyFlux(weights), TUNING if tuning else REPORTING
    for world in worlds or WORLDS:
        seeds = range(first, first + scenes)
        found, kinds = measured(model, (case(model, seed, WORLDS[world]) for seed in seeds), chosen)
        click.echo(f"\n## {world.capitalize()} world, {scenes} scenes, seeds {seeds[0]} to {seeds[-1]}")
        for space in SPACES:
            click.echo("\n" + "\n".join(table(found, space)))
            if WORLDS[world]:
                click.echo("\n" + "\n".join(kinds_table(found, kinds, space)))


if __name__ == "__main__":
    command()
