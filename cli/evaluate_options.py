"""Ways to make maps and masks, against the current one on the same scenes: python -m concept_saliency.cli.evaluate_options

Scenes of the plain world (demo/world.py) and the hard one (demo/hard_world.py); each scene's things are asked for together with
two that are not in it, against every ground. Every difference to the current way is that of the same scenes, with a 95% interval
(scenes drawn again, 1000 times). Options stand in cli/map_options.py. What is chosen is chosen with --tuning, on other scenes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from ..core import masks
from ..core.metrics import bootstrapped, bootstrapped_auroc, boundary_iou, iou, leakage
from ..core.recording import SPACES
from ..core.saliency import Saliency
from ..demo.pipeline import WEIGHTS, TinyFlux
from . import options as shared
from .map_options import OPTIONS, Case, Option, case, one_pass
from .place import Lines

TUNING, REPORTING = 1_400_000, 1_500_000  # first seeds; training, and choosing before, drew their scenes from others
WORLDS = {"plain": False, "hard": True}
MEANS = ("IoU", "missed", "boundary IoU", "AP", "leakage", "empty where absent")
AUROC = "presence AUROC"
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


def figures(model: TinyFlux, case: Case, options: dict[str, Option]) -> dict[str, dict[str, Figures]]:
    """space -> option's name -> one scene's figures. The pass, and maps that several options have in common, are computed once."""
    found: dict[str, dict[str, Figures]] = {}
    for space, recording in one_pass(model, case).items():
        made = {way: way(recording) for way in dict.fromkeys(option.maps for option in options.values())}
        worth = {way: map_figures(maps, case) for way, maps in made.items()}
        found[space] = {name: {**worth[o.maps], **mask_figures(made[o.maps], case, o)} for name, o in options.items()}
    return found


def estimate(scenes: Sequence[Figures], metric: str, reference: Sequence[Figures] | None = None) -> tuple[float, float, float]:
    """A metric, or its difference to the reference's on the same scenes, and the ends of its interval."""
    if metric == AUROC:
        presences = [scene["presence"] for scene in scenes]
        return bootstrapped_auroc(presences, [scene["presence"] for scene in reference] if reference else None)
    found = [(scene[metric], before[metric]) for scene, before in zip(scenes, reference or scenes) if metric in scene]  # not in all
    return bootstrapped([[a - b for a, b in zip(*pair)] if reference else pair[0] for pair in found])


def table(found: dict[str, list[Figures]], space: str) -> Iterator[str]:
    """The lines of a markdown table, an option a line; the first is what the others are compared with."""
    metrics = (*MEANS, AUROC)
    yield f"| {space}: option | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    reference = None
    for name, scenes in found.items():
        cells = []
        for metric in metrics:
            value, low, high = estimate(scenes, metric)
            if reference is None:
                cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
            else:
                more = estimate(scenes, metric, reference)
                cells.append("{:.3f} ({:+.3f}: {:+.3f} to {:+.3f})".format(value, *more) if any(more) else "the same")
        reference = reference or scenes
        yield f"| {name} | " + " | ".join(cells) + " |"


def kinds_table(found: dict[str, list[Figures]], kinds: Sequence[str], space: str) -> Iterator[str]:
    """Mean IoU of a thing by the scene's kind."""
    all_kinds = list(dict.fromkeys(kinds))
    yield f"| {space}: IoU by kind | " + " | ".join(all_kinds) + " |"
    yield "|---" * (len(all_kinds) + 1) + "|"
    for name, scenes in found.items():
        means = [np.mean([value for scene, k in zip(scenes, kinds) if k == kind for value in scene["IoU"]]) for kind in all_kinds]
        yield f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[OPTION]...")
@click.option("--weights", type=shared.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--world", "worlds", type=click.Choice(list(WORLDS)), multiple=True, help="One of both; else both.")
@click.option("--scenes", type=click.IntRange(2), default=100, show_default=True)
@click.option("--tuning", is_flag=True, help=f"Scenes to choose on, from seed {TUNING}; else those to report on, from {REPORTING}.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="One line of JSON a scene; scenes that are in it are not measured again.")
def command(names: tuple[str, ...], weights: Path, worlds: tuple[str, ...], scenes: int, tuning: bool, out: Path | None) -> None:
    if unknown := [name for name in names if name not in OPTIONS]:
        raise click.UsageError(f"There is no option {', '.join(map(repr, unknown))}. Known: {', '.join(OPTIONS)}.")
    reference = next(iter(OPTIONS))
    chosen = {name: OPTIONS[name] for name in dict.fromkeys((reference, *(names or OPTIONS)))}
    try:
        ledger = Lines(out, {"options": list(chosen), "weights": str(weights)}, "--out")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    model, first = TinyFlux(weights), TUNING if tuning else REPORTING
    for world in worlds or WORLDS:
        seeds = range(first, first + scenes)
        done = {line["seed"] for line in ledger.lines if line["world"] == world}
        for seed in tqdm([seed for seed in seeds if seed not in done], desc=world, unit="scene", file=sys.stderr):
            one = case(model, seed, WORLDS[world])
            ledger.add({"world": world, "seed": seed, "kind": one.kind, "found": figures(model, one, chosen)})
        lines = [line for line in ledger.lines if line["world"] == world and line["seed"] in seeds]
        click.echo(f"\n## {world.capitalize()} world, {scenes} scenes, seeds {seeds[0]} to {seeds[-1]}")
        for space in SPACES:
            found = {name: [line["found"][space][name] for line in lines] for name in chosen}
            click.echo("\n" + "\n".join(table(found, space)))
            if WORLDS[world]:
                click.echo("\n" + "\n".join(kinds_table(found, [line["kind"] for line in lines], space)))


if __name__ == "__main__":
    command()
