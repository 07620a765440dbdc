"""The second half of the evaluation on the tiny world: presence, and what refinement does to a mask's edges."""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np
import torch
from tqdm import tqdm

from ..core import masks
from ..core.metrics import boundary_iou
from ..core.saliency import saliency
from ..demo.codec import encode
from ..demo.pipeline import TinyFlux
from ..demo.world import THINGS, make_scene


def presence_auroc(model: TinyFlux, seeds) -> float:
    """How well presence tells the things in a scene from those that are not, all asked for at once: area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    truth, scores = [], []
    for seed in tqdm(seeds, desc="presence", unit="scene", file=sys.stderr):
        scene, latents = scene_and_latents(model, seed)
        result = saliency(model.record_latents(latents, ", ".join(THINGS), seed=seed)["output"])
        truth += [thing in scene.things for thing in THINGS]
        scores += result.presence[0].tolist()
    return float(roc_auc_score(truth, scores))


def boundary_ious(model: TinyFlux, seeds) -> tuple[float, float]:
    """Mean boundary IoU of argmax masks over all things of the scenes: without refinement, with it."""
    found = ([], [])
    for seed in tqdm(seeds, desc="mask edges", unit="scene", file=sys.stderr):
        scene, latents = scene_and_latents(model, seed)
        picture = torch.from_numpy(scene.image.copy())[None].float() / 255
        result = saliency(model.record_latents(latents, ", ".join(scene.things), seed=seed)["output"])
        for thing in scene.things:
            for values, guide in zip(found, (None, picture)):
                mask = masks.mask(result, thing, "argmax", image=guide)[0] > 0.5
                values.append(boundary_iou(mask, torch.from_numpy(scene.masks[thing])))
    return float(np.mean(found[0])), float(np.mean(found[1]))


@lru_cache(maxsize=1000)  # every noise level and setting asks again
def scene_and_latents(model: TinyFlux, seed: int):
    """A scene, and its latents 1 x 16 x h x w."""
    scene = make_scene(seed)
    return scene, encode(model.codec, torch.from_numpy(scene.image.copy()).permute(2, 0, 1)[None].float() / 255)
