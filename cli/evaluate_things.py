"""What an artist gets of the tiny Flux, thing by thing: python -m concept_saliency.cli.evaluate_things

Masks, maps and presence on held-out scenes, output space and cross-attention on the same terms, beside the paper's pooled
figures; how many drawings show exactly what was asked for, as a recogniser reads them (demo/recogniser.py); the masks on those
drawings. The settings of both spaces are chosen on scenes of their own.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from tqdm import tqdm

from ..core import masks, render
from ..core.metrics import bootstrapped_auroc, boundary_iou, iou
from ..core.recording import SPACES
from ..core.saliency import saliency
from ..demo.codec import decode, encode
from ..demo.pipeline import WEIGHTS, TinyFlux
from ..demo.recogniser import CLASSES, Recogniser, is_whole, load_recogniser, read, things_in
from ..demo.world import CONTRAST, GROUNDS, THINGS, make_scene, prompt_of
from . import options
from .datasets import TinyWorld
from .evaluate import HELD_OUT
from .measure import Setting, measure
from .models import Tiny

# method, refined with the picture; the default first, the paper's last
MASKS = (("auto", True), ("auto", False), ("argmax", True), ("otsu", True), ("mean", False))
TUNING = [Setting(level, space, layers, temperature) for space in SPACES for level in (0.3, 0.45, 0.6)
          for layers in ("0-2", "1-2", "2", "0-3", "1-3", "2-3") for temperature in (3.0, 10.0, 30.0)]  # 3 is the first single-stream block
BATCH = 10


class Picture(NamedTuple):
    """image: 1 x 3 x H x W in 0..1; truth: thing -> H x W bool; seed: picks the noise of a pass."""

    image: Tensor
    caption: str
    truth: dict[str, Tensor]
    seed: int


def scene(seed: int) -> Picture:
    """A scene of the world, looked at without a caption."""
    made = make_scene(seed)
    image = torch.from_numpy(made.image.copy()).permute(2, 0, 1)[None].float() / 255
    return Picture(image, "", {thing: torch.from_numpy(made.masks[thing]) for thing in made.things}, seed)


def thing_figures(model: TinyFlux, pictures: Sequence[Picture], settings: Iterable[Setting], choosing: bool = False) -> dict[tuple, list]:
    """Per thing: (setting, method, refined) -> IoUs, (setting, "edges") -> boundary IoUs of the default mask, (setting, "AP") -> AP
    of the thing's own plane; when `choosing`, the default mask's IoUs alone.
    All things of a picture are asked for together, against every ground."""
    from sklearn.metrics import average_precision_score

    label, methods = ("choosing by masks", MASKS[:1]) if choosing else ("masks", MASKS)
    figures: dict[tuple, list] = defaultdict(list)
    passes = sorted(settings, key=lambda s: s.noise_level)
    for picture in tqdm([p for p in pictures if p.truth], desc=label, unit="picture", file=sys.stderr):
        latents, guide = encode(model.codec, picture.image), picture.image.permute(0, 2, 3, 1)
        for level, group in itertools.groupby(passes, key=lambda s: s.noise_level):
            recordings = model.record_latents(latents, ", ".join(picture.truth), captions=[picture.caption], noise_level=level,
                                              seed=picture.seed, cross_attention=True, blocks="double and first single")
            for setting in group:
                result = saliency(recordings[setting.space], setting.layers, temperature=setting.temperature)
                for thing, truth in picture.truth.items():
                    for method, refined in methods:
                        mask = masks.mask(result, thing, method, image=guide if refined else None)[0] > 0.5
                        figures[setting, method, refined].append(iou(mask, truth))
                        if (method, refined) == MASKS[0] and not choosing:
                            figures[setting, "edges"].append(boundary_iou(mask, truth))
                    if choosing:
                        continue
                    plane = masks.soft_masks(result)[0, result.index(thing)]
                    figures[setting, "AP"].append(float(average_precision_score(truth.flatten().numpy(), plane.flatten().numpy())))
    return figures


def chosen_by_masks(model: TinyFlux, seeds: Iterable[int]) -> dict[str, Setting]:
    """For each space the setting whose default masks are best, by mean IoU, on these scenes."""
    figures = thing_figures(model, [scene(seed) for seed in seeds], TUNING, choosing=True)
    return {space: max((s for s in TUNING if s.space == space), key=lambda s: np.mean(figures[(s, *MASKS[0])])) for space in SPACES}


def thing_table(figures: dict[tuple, list[float]], settings: Iterable[Setting]) -> list[str]:
    """The lines of a markdown table."""
    lines = ["| space | layers | noise | temperature | mask | mean IoU | median IoU | boundary IoU | AP |", "|---" * 9 + "|"]
    for s in settings:
        for method, refined in MASKS:
            ious = figures[s, method, refined]
            more = (f"{np.mean(figures[s, 'edges']):.4f} | {np.mean(figures[s, 'AP']):.4f}" if (method, refined) == MASKS[0] else "|")
            lines.append(f"| {s.space} | {s.layers} | {s.noise_level:g} | {s.temperature:g} | {method}{', refined' if refined else ''} | "
                         f"{np.mean(ious):.4f} | {np.median(ious):.4f} | {more} |")
    return lines


def grid_ceilings(pictures: Iterable[Picture], patch: int = 16) -> tuple[float, float]:
    """Mean IoU of the truth itself, once it has been through the token grid: nearest, and bilinear."""
    found: tuple[list[float], list[float]] = ([], [])
    for truth in (t for picture in pictures for t in picture.truth.values()):
        height, width = size = tuple(truth.shape)
        cells = adaptive_avg_pool2d(truth[None, None].float(), (height // patch, width // patch))
        for values, mode, shares in zip(found, ("nearest", "bilinear"), ((cells > 0.5).float(), cells)):
            values.append(iou(interpolate(shares, size, mode=mode)[0, 0] > 0.5, truth))
    return float(np.mean(found[0])), float(np.mean(found[1]))


def presence_auroc(model: TinyFlux, seeds) -> float:
    """How well presence tells the things in a scene from those that are not, all asked for at once: area under the ROC curve."""
    pictures = []
    for seed in tqdm(seeds, desc="presence", unit="scene", file=sys.stderr):
        image, _, there, _ = scene(seed)
        result = saliency(model.record(image, ", ".join(THINGS), seed=seed)["output"])
        pictures.append([(thing in there, float(value)) for thing, value in zip(THINGS, result.presence[0])])
    return bootstrapped_auroc(pictures)[0]


class Drawing(NamedTuple):
    """picture: 1 x 3 x H x W in 0..1; asked: the things of its prompt; labels: what the recogniser reads, H x W classes."""

    picture: Tensor
    prompt: str
    asked: tuple[str, ...]
    labels: Tensor

    def exact(self) -> bool:
        """Whether exactly the things asked for are read."""
        return things_in(self.labels) == set(self.asked)

    def whole(self) -> bool:
        """Whether each of them has its own outline too."""
        return self.exact() and all(is_whole(self.labels, thing) for thing in self.asked)


def prompts(count: int, seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """Prompts with one, two and three things in turn, and their things."""
    rng = np.random.default_rng([seed, count])
    chosen = [tuple(map(str, rng.choice(list(THINGS), 1 + i % 3, replace=False))) for i in range(count)]
    return [(prompt_of(things, str(rng.choice(list(GROUNDS)))), things) for things in chosen]


def draw(model: TinyFlux, recogniser: Recogniser, count: int, seed: int) -> list[Drawing]:
    """What the model makes of `count` prompts, one picture each, none chosen."""
    drawings, asked = [], prompts(count, seed)
    for start in tqdm(range(0, count, BATCH), desc="drawing", unit=f"{BATCH} pictures", file=sys.stderr):
        batch = asked[start:start + BATCH]
        pictures = model.draw([prompt for prompt, _ in batch], range(seed + start, seed + start + len(batch)))
        drawings += [Drawing(picture[None], *a, labels) for picture, a, labels in zip(pictures, batch, read(recogniser, pictures))]
    return drawings


def scenes_as_drawings(model: TinyFlux, recogniser: Recogniser, seeds: Iterable[int]) -> list[Drawing]:
    """Held-out scenes after the codec, read by the same rule: the ceiling."""
    drawings = []
    for seed in seeds:
        image, _, truth, _ = scene(seed)
        again = decode(model.codec, encode(model.codec, image))
        drawings.append(Drawing(again, "", tuple(truth), read(recogniser, again)[0]))
    return drawings


def drawing_table(rows: dict[str, list[Drawing]]) -> list[str]:
    """The lines of a markdown table: share of pictures with exactly the things asked for, and with all of them whole."""
    lines = ["| pictures | things | number | exactly those things | and each of them whole |", "|---|---|---|---|---|"]
    for title, drawings in rows.items():
        for number in (1, 2, 3):
            of = [d for d in drawings if len(d.asked) == number]
            if of:
                lines.append(f"| {title} | {number} | {len(of)} | {np.mean([d.exact() for d in of]):.3f} | "
                             f"{np.mean([d.whole() for d in of]):.3f} |")
    return lines


def as_pictures(drawings: Iterable[Drawing]) -> list[Picture]:
    """Drawings with what the recogniser reads as the truth; things that were asked for and are not read do not count."""
    return [Picture(d.picture, d.prompt, {t: d.labels == CLASSES.index(t) for t in d.asked if t in things_in(d.labels)}, i)
            for i, d in enumerate(drawings)]


def pooled_table(model: TinyFlux, seeds: range, settings: Iterable[Setting]) -> list[str]:
    """The paper's figures with these settings: one target at a time, the paper's rivals or every ground."""
    lines = ["| space | rivals | accuracy | mIoU | mAP |", "|---" * 5 + "|"]
    data = TinyWorld(seeds)
    for name, rivals in (("the paper's", data.contrast), ("every ground", CONTRAST)):
        for s, (m, _) in measure(Tiny(model), data, range(len(seeds)), settings, rivals).items():
            lines.append(f"| {s.space} | {name} | {m.pixel_accuracy:.4f} | {m.mean_iou:.4f} | {m.mean_average_precision:.4f} |")
    return lines


def write_sheet(drawings: Sequence[Drawing], file: Path) -> None:
    """The first 24 drawings, under their prompts, at half their size."""
    tiles = [render.label(d.picture[0].movedim(0, -1), d.prompt) for d in drawings[:24]]
    whole = render.to_pil(render.sheet(tiles, columns=6))
    whole.reduce(2).save(file)


def report(model: TinyFlux, scenes: int, tune: int, count: int, sheet: Path | None) -> Iterator[str]:
    """All tables, as lines of markdown."""
    best = chosen_by_masks(model, range(HELD_OUT, HELD_OUT + tune))
    seeds = range(HELD_OUT + tune, HELD_OUT + tune + scenes)
    pictures = [scene(seed) for seed in seeds]
    yield f"## {scenes} held-out scenes, seeds {seeds[0]} to {seeds[-1]}; settings chosen on the {tune} before them"
    yield from ("", "The things of a scene asked for together, against every ground; means and medians over things.", "")
    yield from thing_table(thing_figures(model, pictures, best.values()), best.values())
    nearest, bilinear = grid_ceilings(pictures)
    yield from ("", f"Ceiling of the token grid: IoU {nearest:.4f} nearest, {bilinear:.4f} bilinear.")
    yield from ("", "Presence of the things that are there against those that are not, with the model's own settings: AUROC "
                f"{presence_auroc(model, seeds):.4f}.", "", "The same settings by the paper's protocol, thresholds and metrics:", "")
    yield from pooled_table(model, seeds, best.values())
    recogniser = load_recogniser()
    drawings = draw(model, recogniser, count, HELD_OUT)
    if sheet:
        write_sheet(drawings, sheet)
    yield from ("", f"## {count} drawings, none chosen, seeds {HELD_OUT} to {HELD_OUT + count - 1}", "")
    yield from drawing_table({"drawn": drawings, "held-out scenes": scenes_as_drawings(model, recogniser, seeds)})
    yield from ("", "Masks of the drawings, with what the recogniser reads as the truth:", "")
    yield from thing_table(thing_figures(model, as_pictures(drawings), best.values()), best.values())


@click.command(help=__doc__)
@click.option("--weights", type=options.EXISTING_FOLDER, default=WEIGHTS, help="Folder of other weights of the tiny model.")
@click.option("--scenes", type=click.IntRange(1), default=200, show_default=True, help="Scenes to report on.")
@click.option("--tune", type=click.IntRange(1), default=60, show_default=True, help="Other scenes, to choose settings on.")
@click.option("--drawings", type=click.IntRange(3), default=200, show_default=True, help="Drawings of one, two and three things in turn.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the first 24 drawings too.")
def command(weights: Path, scenes: int, tune: int, drawings: int, sheet: Path | None) -> None:
    for line in report(TinyFlux(weights), scenes, tune, drawings, sheet):
        click.echo(line)


if __name__ == "__main__":
    command()
