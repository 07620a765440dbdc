"""A page of pictures beside the figures: picture, heatmap, mask and truth of some samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..core import masks, render
from ..core.saliency import saliency
from .datasets import DataSet, resized
from .measure import Setting, look, prepared
from .models import Model
from .protocols import Rules

SIDE = 256


def write_page(file: Path, model: Model, data: DataSet, picks: Sequence[int], setting: Setting, contrast: str,
               rules: Rules, samples: int) -> None:
    """Write a contact sheet, one row a sample and target; maps have a softmax, masks are where a map exceeds its mean."""
    rules = replace(rules, linear=False)
    tiles = []
    for pick in picks:
        sample = data[pick]
        image, _ = prepared(sample, model, data, rules)
        shown = torch.from_numpy(resized(sample.image, (SIDE, SIDE))).float() / 255
        labels = torch.from_numpy(resized(sample.labels, (SIDE, SIDE)))
        for targets in [sample.targets] if data.together else [(t,) for t in sample.targets]:
            recordings = look(model, image, targets, contrast, sample.seed, samples, setting.noise_level, setting.self_attention, rules)
            result = saliency(recordings[setting.space], setting.layers, temperature=setting.temperature).at_size((SIDE, SIDE))
            heat = render.tiles(result, masks.soft_masks(result))
            for i, target in enumerate(targets):
                mask = masks.mask(result, target, "mean")[0]
                truth = (labels == sample.targets.index(target) + 1).float()
                tiles += [render.label(shown, sample.name), heat[i]]
                tiles += [render.label(plane[..., None].expand(-1, -1, 3), f"{target}: {title}")
                          for plane, title in ((mask, "mask"), (truth, "truth"))]
    render.to_pil(render.sheet(tiles, columns=4)).save(file)
