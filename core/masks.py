"""Saliency -> masks."""

from __future__ import annotations

import torch
from torch import Tensor

from .saliency import Saliency

METHODS = ("mean", "absolute", "argmax")


def soft_masks(saliency: Saliency) -> Tensor:
    """Every concept's map on the picture's pixels: B x C x H x W float32 in 0..1."""
    return saliency.pixels(saliency.maps)


def rows_of(saliency: Saliency, concept: str) -> list[int]:
    """The rows of a concept, or of several joined by "+"; empty for the first. Raises ValueError for an unknown one."""
    if concept.strip().casefold() in map(str.casefold, saliency.concepts):
        return [saliency.index(concept)]  # a name that holds a "+" itself
    return [saliency.index(name) for name in concept.split("+")]


def mask(saliency: Saliency, concept: str = "", method: str = "mean", threshold: float = 0.5, invert: bool = False) -> Tensor:
    """The mask of one concept, B x H x W float32, exactly 0 or 1.

    concept: its name, or several joined by "+" for their union; empty for the first. method: "mean",
    above the map's own mean (the paper's); "absolute", above `threshold`; "argmax", above every other
    concept and every contrast concept. Raises ValueError for an unknown concept or method.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}', expected one of {', '.join(METHODS)}")
    rows = rows_of(saliency, concept)
    if method == "argmax":
        maps = saliency.pixels(torch.cat((saliency.maps, saliency.contrast_maps), dim=1))
        winner = maps.argmax(dim=1)
        inside = torch.stack([winner == row for row in rows]).any(dim=0)
    else:
        maps = saliency.pixels(saliency.maps[:, rows])
        limit = maps.mean(dim=(2, 3), keepdim=True) if method == "mean" else threshold
        inside = (maps > limit).any(dim=1)
    return (~inside if invert else inside).float()
