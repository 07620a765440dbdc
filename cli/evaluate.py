"""concept-saliency evaluate: how well saliency maps find things, by the paper's protocol, on pictures that training never saw."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ..core.concepts import DEFAULT_CONTRAST
from ..core.metrics import SegmentationMetrics
from ..core.recording import SPACES
from ..core.saliency import saliency
from ..demo.pipeline import TinyFlux
from .evaluate_masks import boundary_ious, presence_auroc, scene_and_latents

EXAMPLES = """examples:
  concept-saliency evaluate --data tiny --scenes 200 --seed 0
"""
HELD_OUT = 1_000_000  # training draws its scenes from seeds below this
NOISE_LEVELS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
TEMPERATURES = {"output": (0.1, 0.3, 1.0, 3.0, 10.0), "cross-attention": (0.3, 1.0, 3.0, 10.0, 30.0)}


def add_arguments(parser) -> None:
    parser.add_argument("--data", choices=["tiny"], default="tiny", help="the data set (tiny: the procedural world)")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes to report on")
    parser.add_argument("--tune", type=int, default=60, help="other held-out scenes, on which the settings are chosen")
    parser.add_argument("--seed", type=int, default=0, help="picks the scenes and the noise")
    parser.add_argument("--weights", help="folder of other weights than the bundled ones")
    parser.add_argument("--contrast", default=DEFAULT_CONTRAST, help="rivals of the target (%(default)s: the paper's)")
    parser.add_argument("--json", metavar="FILE", help="write the settings and figures as JSON too")


def measure(model: TinyFlux, seeds, noise_level: float, settings, contrast: str = DEFAULT_CONTRAST) -> dict[tuple, SegmentationMetrics]:
    """Metrics of every setting (space, layers, temperature) at one noise level.

    Paper's protocol: one forward pass a scene and target, prompt "a <target>", the target against
    the contrast concepts.
    """
    metrics = {setting: SegmentationMetrics() for setting in settings}
    for seed in seeds:
        scene, latents = scene_and_latents(model, seed)
        for target in scene.things:
            recordings = model.record_latents(latents, target, contrast, [f"a {target}"], noise_level, seed, cross_attention=True)
            label = torch.from_numpy(scene.masks[target])
            for space, layers, temperature in settings:
                maps = saliency(recordings[space], layers, temperature=temperature).maps
                metrics[space, layers, temperature].add(maps[0, 0], label)
    return metrics


def main(args) -> int:
    model = TinyFlux(Path(args.weights)) if args.weights else TinyFlux()
    depth = len(model.flux.double_blocks)
    layers = [str(i) for i in range(depth)] + [f"{a}-{b}" for a in range(depth) for b in range(a + 1, depth)]
    first = HELD_OUT + 10_000 * args.seed
    tune, report = range(first, first + args.tune), range(first + args.tune, first + args.tune + args.scenes)
    figures: dict[tuple, SegmentationMetrics] = {}
    settings = [(space, la, te) for space in SPACES for la in layers for te in TEMPERATURES[space]]
    for level in tqdm(NOISE_LEVELS, desc=f"choosing on {args.tune} scenes", unit="level", file=sys.stderr):
        figures |= {(level, *k): m for k, m in measure(model, tune, level, settings, args.contrast).items()}
    best = {space: max((k for k in figures if k[1] == space), key=lambda k: score(figures[k])) for space in SPACES}
    rows = []
    per_layer = {space: {(best[space][0], space, la, best[space][3]) for la in layers} for space in SPACES}
    per_level = {space: {(le, *best[space][1:]) for le in NOISE_LEVELS} for space in SPACES}
    wanted = set().union(*per_layer.values(), *per_level.values())
    reported: dict[tuple, SegmentationMetrics] = {}
    for level in tqdm(NOISE_LEVELS, desc=f"reporting on {args.scenes} scenes", unit="level", file=sys.stderr):
        chosen = sorted({k[1:] for k in wanted if k[0] == level})
        if chosen:
            reported |= {(level, *k): m for k, m in measure(model, report, level, chosen, args.contrast).items()}
    for title, groups in (("Best setting of each space (chosen on other scenes)", {s: {best[s]} for s in SPACES}),
                          ("Per layer", per_layer), ("Per noise level", per_level)):
        rows += ["", f"### {title}", "", "| space | layers | noise | temperature | accuracy | mIoU | mAP |", "|---|---|---|---|---|---|---|"]
        for key in itertools.chain.from_iterable(sorted(g) for g in groups.values()):
            m = reported[key]
            rows.append(f"| {key[1]} | {key[2]} | {key[0]:g} | {key[3]:g} | {m.pixel_accuracy:.4f} | {m.mean_iou:.4f} | "
                        f"{m.mean_average_precision:.4f} |")
    ours, theirs = (reported[best[space]] for space in SPACES)
    gap_iou, gap_ap = ours.mean_iou - theirs.mean_iou, ours.mean_average_precision - theirs.mean_average_precision
    print(f"## Tiny world: {args.scenes} held-out scenes, seeds {report.start} to {report.stop - 1}, one forward pass each")
    print(f"\nThe target competes with: {args.contrast}")
    print("\n".join(rows))
    print(f"\nOutput space is {'ahead of' if gap_iou > 0 else 'behind'} cross-attention by {abs(gap_iou):.4f} mIoU "
          f"and {'ahead' if gap_ap > 0 else 'behind'} by {abs(gap_ap):.4f} mAP.")
    print(f"\nPresence of the things that are there against those that are not, with the stored settings: AUROC "
          f"{presence_auroc(model, report):.4f}.")
    plain, refined = boundary_ious(model, report)
    print(f"Boundary IoU of argmax masks: {plain:.4f} plain, {refined:.4f} refined with the picture.")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"best": {s: dict(zip(("noise_level", "space", "layers", "temperature"), best[s])) for s in SPACES},
                       "figures": {" ".join(map(str, k)): [m.pixel_accuracy, m.mean_iou, m.mean_average_precision]
                                   for k, m in sorted(reported.items())}}, file, indent=1)
    return 0


def score(metrics: SegmentationMetrics) -> float:
    """What settings are chosen by."""
    return metrics.mean_iou + metrics.mean_average_precision
