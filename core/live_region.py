"""A region that a run finds in itself: where a word takes shape in the steps so far, and how much of each place is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .masks import METHODS, Shaping, mask
from .recording import Recording
from .saliency import saliency


@dataclass(frozen=True)
class RegionRule:
    """What becomes of the words' maps. strength: at most so much of a place is the region's, 0 to 1. method, threshold, shaping: see
    core.masks.mask. min_presence: a picture in which the words are less surely there has no region. Raises ValueError for values that
    cannot be."""

    strength: float = 1.0
    method: str = METHODS[0]
    threshold: float = 0.5
    shaping: Shaping = field(default_factory=Shaping)
    min_presence: float = 0.3

    def __post_init__(self):
        for name in ("strength", "threshold", "min_presence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}, expected 0 to 1")

    def region(self, recording: Recording, grid: tuple[int, int]) -> Region:
        """The region of all the words of a recording, from every step in it, on a latent's grid (rows, columns)."""
        maps = saliency(recording, end=recording.progress[-1])  # not (0, 1), which leaves out a family's first steps
        presence = maps.presence.amax(dim=1)
        words = "+".join(str(number) for number, _ in enumerate(recording.concepts, 1))
        found = mask(maps, words, self.method, self.threshold, self.shaping)
        found = torch.where(presence[:, None, None] < self.min_presence, 0.0, found)
        return Region(adaptive_avg_pool2d(found, grid) * self.strength, presence)


@dataclass(frozen=True)
class Region:
    """weights: B x h x w in 0..1, how much of each place of the latent is the region's; presence: B, how surely its words are there."""

    weights: Tensor
    presence: Tensor


def shares(weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Several regions' weights -> the base's share of each place, and each region's; together they are 1.

    Where regions overlap to more than the whole, they have it in the proportion of their weights, and the base has nothing.
    """
    total = torch.stack(list(weights)).sum(dim=0)
    return (1 - total).clamp(min=0), [one / total.clamp(min=1) for one in weights]
