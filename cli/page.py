"""A page of pictures beside the figures: picture, heatmap, mask and truth of some samples."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import torch

from ..core import masks, render
from .datasets import DataSet
from .measure import Setting, look, prepared, resized
from .models import Model

SIDE = 256


def write_page(file: Path, model: Model, data: DataSet, picks: Sequence[int], setting: Setting, contrast: str,
               samples: int) -> None:
    """Write a contact sheet, one row a sample and target; masks are where a map exceeds its mean."""
    tiles = []
    for pick in picks:
        sample = data[pick]
        image, _ = prepared(sample, model, data)
        shown = torch.from_numpy(resized(sample.image, (SIDE, SIDE))).float() / 255
        labels = torch.from_numpy(resized(sample.labels, (SIDE, SIDE)))
        for targets in [sample.targets] if data.together else [(t,) for t in sample.targets]:
            result = look(model, image, targets, [setting], contrast, sample.seed, samples, setting.noise_level,
                          setting.self_attention)[setting].at_size((SIDE, SIDE))
            heat = render.tiles(result, masks.soft_masks(result))
            for i, target in enumerate(targets):
                mask = masks.mask(result, target, "mean")[0]
                truth = (labels == sample.targets.index(target) + 1).float()
                tiles += [render.label(shown, sample.name), heat[i]]
                tiles += [render.label(plane[..., None].expand(-1, -1, 3), f"{target}: {title}")
                          for plane, title in ((mask, "mask"), (truth, "truth"))]
    render.to_pil(render.sheet(tiles, columns=4)).save(file)
