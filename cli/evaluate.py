"""concept-saliency evaluate: how well saliency maps find things, by two protocols, on pictures that training never saw."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from ..core.recording import SPACES
from . import datasets, evaluate_steps, models, options, protocols
from .evaluate_steps import Figures
from .measure import Setting
from .page import write_page

EXAMPLES = options.examples(
    "concept-saliency evaluate --data tiny --scenes 200 --seed 0",
    "concept-saliency evaluate --data imagenet --path gtsegs_ijcv.mat --class-names names.json --model FOLDER",
    "concept-saliency evaluate --data voc-single --path VOCdevkit/VOC2012 --protocol paper --model FOLDER",
    "concept-saliency evaluate --data voc-multi --path VOCdevkit/VOC2012 --model FOLDER --page page.png",
    "concept-saliency evaluate --data folder --path cats")
HELD_OUT = 1_000_000  # training drew its scenes from seeds below this, and now does from 2**40 on
NOISE_LEVELS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
TEMPERATURES = {"output": (0.1, 0.3, 1.0, 3.0, 10.0), "cross-attention": (0.3, 1.0, 3.0, 10.0, 30.0)}
PUBLISHED = {"imagenet": "| the paper's, output, Flux schnell | | | | 0.8307 | 0.7104 | 0.9045 | | |"}
HEAD = ["| space | layers | noise | temperature | accuracy | mIoU | mAP | IoU of a thing | AP of a thing |", "|---" * 9 + "|"]


@click.command(epilog=EXAMPLES)
@click.option("--data", "name", type=click.Choice(["tiny", "imagenet", "voc-single", "voc-multi", "folder"]), default="tiny",
              show_default=True, help="The data set.")
@click.option("--path", type=click.Path(exists=True, path_type=Path), help="Where it is; not for tiny.")
@click.option("--protocol", type=click.Choice(protocols.PROTOCOLS), default="ours", show_default=True,
              help="Whose rules: the paper's code to the letter, or what we think right. The report names every difference.")
@click.option("--split", type=click.Choice(["train", "val"]), default="val", show_default=True, help="Of PascalVOC.")
@click.option("--class-names", type=options.EXISTING_FILE, help="JSON, WordNet id to name, or the authors' map; for imagenet.")
@click.option("--wordnet", type=options.EXISTING_FILE, help="data.noun of WordNet 3.0, where --class-names is the authors' map.")
@click.option("--scenes", type=click.IntRange(1), help="Pictures to report on.  [default: 200 of tiny, else all]")
@click.option("--tune", type=click.IntRange(0), help="Other pictures, to choose settings on; 0: the model's own settings.  "
                                                           "[default: 60 of tiny, else 0]")
@click.option("--seed", type=click.IntRange(0, 10**9), default=0, show_default=True, help="Picks tiny's scenes.")
@click.option("--samples", type=click.IntRange(1, 64),
              help="Passes with different noise, averaged.  [default: the protocol's]")
@click.option("--settings", "stored", type=options.EXISTING_FILE, metavar="FILE",
              help="Take the best settings from a file that --json wrote, in place of choosing them.")
@click.option("--resume", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the figures there as they come; started again, go on from them.")
@options.model
@click.option("--weights", type=options.EXISTING_FOLDER, help="Folder of other weights of the tiny model than the bundled ones.")
@click.option("--contrast", help="Rivals of the target.  [default: the paper's]")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the settings and figures as JSON too.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Write a page of pictures too: picture, heatmap, mask and truth.")
@click.option("--page-pictures", type=click.IntRange(1, 100), default=8, show_default=True, help="How many pictures are on it.")
def command(name: str, path: Path | None, protocol: str, split: str, class_names: Path | None, wordnet: Path | None,
            scenes: int | None, tune: int | None, seed: int, samples: int | None, stored: Path | None, resume: Path | None,
            model_name: str, weights: Path | None, contrast: str | None, json_file: Path | None, page: Path | None,
            page_pictures: int) -> None:
    """Measure output space and cross-attention, each per layer and noise level, with and without self-attention among concepts.

    \b
    The data sets, none of which comes with the pack, and where --path leads:
      tiny        the procedural world; needs no files
      imagenet    gtsegs_ijcv.mat from calvin-vision.net/bigstuff/proj-imagenet
      voc-single  VOCdevkit/VOC2012 of host.robots.ox.ac.uk/pascal/VOC/voc2012,
                  pictures with one class
      voc-multi   the same, all pictures, all their classes at once
      folder      images/NAME.jpg (or .png) and masks/CLASS/NAME.png,
                  white where the class is

    Neither the published data sets nor Flux's weights were available where this was built: there it ran on the
    tiny world, and on small files in the data sets' formats.
    """
    for file in (resume, json_file, page):
        if file and not file.parent.is_dir():
            raise ValueError(f"'{file}' cannot be written: there is no folder '{file.parent}'.")
    model = models.load(model_name, weights)
    tiny = name == "tiny"
    if tiny and model_name != "tiny":
        raise ValueError("The tiny world is evaluated with the tiny model. Leave --model out, or choose another --data.")
    if protocol == "paper" and (tune or stored):
        raise ValueError("--protocol paper has its own settings and chooses none. Leave --tune and --settings out.")
    rules = protocols.rules(protocol, name)
    samples = samples or rules.samples
    tune = (60 if tiny and protocol == "ours" else 0) if tune is None else tune
    first = HELD_OUT + 10_000 * seed
    data = (datasets.TinyWorld(range(first, first + tune + (scenes or 200))) if tiny else
            opened(name, path, split, class_names, wordnet, protocol))
    rivals = data.contrast if contrast is None else contrast
    if len(data) <= tune:
        raise ValueError(f"{data.title} holds {len(data)} pictures, but --tune takes {tune} of them. Take fewer.")
    report = range(tune, min(len(data), tune + (scenes or len(data))))
    if not tiny:
        evaluate_steps.check(data, range(report.stop))
    ledger = evaluate_steps.Ledger(resume, {"data": name, "path": str(path), "protocol": protocol, "split": split, "model": model_name,
                                            "weights": str(weights), "contrast": rivals, "samples": samples, "seed": seed,
                                            "tune": tune, "report": len(report)})
    steps = functools.partial(evaluate_steps.measured, model, data, contrast=rivals, rules=rules, samples=samples, ledger=ledger)
    if tune and not stored:
        click.echo(f"Settings are chosen on {tune} other pictures first; --tune 0 takes the model's own, --settings a file's.", err=True)
    best = settings_in(stored) if stored else chosen_settings(model, tune, steps) if tune else own_settings(model, rules)
    layers = layer_choices(model.layers())
    chosen = ("Best setting of each space (chosen on other scenes)" if tune and not stored else
              f"Best setting of each space ({stored})" if stored else
              "The settings of the paper's code" if protocol == "paper" else "The settings of the model itself")
    tables = {chosen: list(best.values()),
              "Per layer": [best[space]._replace(layers=la) for space in SPACES for la in layers],
              "Per noise level": [best[space]._replace(noise_level=level) for space in SPACES for level in NOISE_LEVELS],
              "Without self-attention among the concepts": [best[space]._replace(self_attention=False) for space in SPACES]}
    if blurred := [setting._replace(blurred=False) for setting in best.values() if setting.blurred]:
        tables["Without the blur"] = blurred
    wanted = dict.fromkeys(itertools.chain.from_iterable(tables.values()))
    reported = steps(report, wanted, label="reporting", tell=tell)

    what = f"held-out scenes, seeds {first + report[0]} to {first + report[-1]}" if tiny else f"pictures, model {model_name}"
    passes = "one forward pass" if samples == 1 else f"{samples} forward passes"
    click.echo(f"## {data.title}, protocol '{protocol}': {len(report)} {what}, {passes} each")
    click.echo(f"\nThe target competes with: {rivals}")
    for title, settings in tables.items():
        click.echo("\n".join(["", f"### {title}", "", *HEAD, *rows(settings, reported)]))
        if title == chosen and name in PUBLISHED:
            click.echo(PUBLISHED[name])
    click.echo("\n" + verdict(*(reported[best[space]] for space in SPACES)))
    click.echo("\n".join(protocols.told(protocol, name)))
    if json_file:
        json_file.write_text(json.dumps({
            "best": {space: dict(zip(Setting._fields, best[space])) for space in SPACES},
            "protocol": protocol, "figures": {s.key: without_nan(m._asdict()) for s, m in sorted(reported.items())}}, indent=1), "utf-8")
    if page:
        write_page(page, model, data, report[:page_pictures], best["output"], rivals, rules, samples)


def own_settings(model: models.Model, rules: protocols.Rules) -> dict[str, Setting]:
    """The setting of each space where none is chosen: the protocol's, and where it has none the model's own."""
    level = model.noise_level if rules.noise_level is None else rules.noise_level
    temperature = 0.0 if rules.layers is None else 1.0
    return {space: Setting(level, space, rules.layers_of(model.depth), temperature, blurred=space in rules.blurred) for space in SPACES}


def chosen_settings(model: models.Model, tune: int, steps: Callable[..., dict[Setting, Figures]]) -> dict[str, Setting]:
    """The best setting of each space on the first `tune` pictures."""
    choices = [Setting(level, space, layers, temperature) for level in NOISE_LEVELS for space in SPACES
               for layers in layer_choices(model.layers()) for temperature in TEMPERATURES[space]]
    figures = steps(range(tune), choices, label="choosing", tell=lambda found: None, things=False)
    return {space: max((s for s in figures if s.space == space), key=lambda s: score(figures[s])) for space in SPACES}


def settings_in(file: Path) -> dict[str, Setting]:
    """The best settings in a file that --json wrote. Raises ValueError for any other."""
    try:
        return {space: Setting(**json.loads(file.read_text("utf-8"))["best"][space]) for space in SPACES}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--settings is '{file}', which --json of this command did not write: {error!r}") from error


def tell(found: dict[Setting, Figures]) -> None:
    """Figures as they come, beside the bars; the tables at the end have them all."""
    for line in rows(found, found):
        click.echo(line, err=True)


def opened(name: str, path: Path | None, split: str, class_names: Path | None, wordnet: Path | None, protocol: str) -> datasets.DataSet:
    """A data set that comes as files. Raises ValueError where they are missing."""
    if path is None:
        raise ValueError(f"--data {name} needs --path, the place of its files; see concept-saliency evaluate --help.")
    if name == "imagenet":
        return datasets.ImageNetSegmentation(path, datasets.read_class_names(class_names, wordnet))
    if name == "folder":
        return datasets.Folder(path)
    return datasets.PascalVOC(path, split, single=name == "voc-single", paper=protocol == "paper")


def layer_choices(depth: int) -> list[str]:
    """Every layer alone, and the ranges of layers that are worth a look: all of a small model, the last ones of a large."""
    ranges = [(a, b) for a in range(depth) for b in range(a + 1, depth) if depth <= 4 or b == depth - 1]
    return [str(i) for i in range(depth)] + [f"{a}-{b}" for a, b in ranges]


def rows(settings: Iterable[Setting], reported: dict[Setting, Figures]) -> list[str]:
    """The lines of a markdown table, space by space."""
    lines = []
    for space in SPACES:
        for s in sorted(s for s in settings if s.space == space):
            m = reported[s]
            temperature = f"{s.temperature:g}" if s.temperature else "auto"
            lines.append(f"| {s.space} | {s.layers} | {s.noise_level:g} | {temperature} | {m.pixel_accuracy:.4f} | {m.mean_iou:.4f} | "
                         f"{written(m.mean_average_precision)} | {written(*m.thing_iou)} | {written(*m.thing_precision)} |")
    return lines


def written(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A figure as the tables show it, with its interval if it has one."""
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def without_nan(figures):
    """Figures for a JSON file, which knows no NaN."""
    if isinstance(figures, dict):
        return {name: without_nan(figure) for name, figure in figures.items()}
    if isinstance(figures, (tuple, list)):
        return [without_nan(figure) for figure in figures]
    return None if math.isnan(figures) else figures


def verdict(ours: Figures, theirs: Figures) -> str:
    """Output space against cross-attention, in one sentence."""
    gap = ours.mean_iou - theirs.mean_iou
    text = f"Output space is {'ahead of' if gap > 0 else 'behind'} cross-attention by {abs(gap):.4f} mIoU"
    gap = ours.mean_average_precision - theirs.mean_average_precision
    return f"{text}." if math.isnan(gap) else f"{text} and {'ahead' if gap > 0 else 'behind'} by {abs(gap):.4f} mAP."


def score(metrics: Figures) -> float:
    """What settings are chosen by."""
    return metrics.mean_iou + (0.0 if math.isnan(metrics.mean_average_precision) else metrics.mean_average_precision)
