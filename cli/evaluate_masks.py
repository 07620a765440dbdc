"""The second half of the evaluation on the tiny world: presence, and what refinement does to a mask's edges."""

from __future__ import annotations

import sys

import numpy as np
import torch
from tqdm import tqdm

from ..core import masks
from ..core.metrics import boundary_iou
from ..core.saliency import saliency
from ..demo.pipeline import TinyFlux
from ..demo.world import THINGS, make_scene


def presence_auroc(model: TinyFlux, seeds) -> float:
    """How well presence tells the things in a scene from those that are not, all asked for at once: area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    truth, scores = [], []
    for seed in tqdm(seeds, desc="presence", unit="scene", file=sys.stderr):
        scene, image = scene_and_image(seed)
        result = saliency(model.record(image, ", ".join(THINGS), seed=seed)["output"])
        truth += [thing in scene.things for thing in THINGS]
        scores += result.presence[0].tolist()
    return float(roc_auc_score(truth, scores))


def boundary_ious(model: TinyFlux, seeds) -> tuple[float, float]:
    """Mean boundary IoU of argmax masks over all things of the scenes: without refinement, with it."""
    found = ([], [])
    for seed in tqdm(seeds, desc="mask edges", unit="scene", file=sys.stderr):
        scene, image = scene_and_image(seed)
        result = saliency(model.record(image, ", ".join(scene.things), seed=seed)["output"])
        for thing in scene.things:
            for values, guide in zip(found, (None, image.movedim(1, -1))):
                mask = masks.mask(result, thing, "argmax", image=guide)[0] > 0.5
                values.append(boundary_iou(mask, torch.from_numpy(scene.masks[thing])))
    return float(np.mean(found[0])), float(np.mean(found[1]))


def scene_and_image(seed: int):
    """A scene, and its picture as 1 x 3 x H x W in 0..1."""
    scene = make_scene(seed)
    return scene, torch.from_numpy(scene.image.copy()).permute(2, 0, 1)[None].float() / 255
