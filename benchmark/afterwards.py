"""What comes after a run: saliency, masks and instances, without a model."""

from __future__ import annotations

import memory
import torch
from concept_saliency.core import masks, regions
from concept_saliency.core.families import flux1
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import saliency
from flux import CONTRAST
from turns import InTurns, Rows


def afterwards(rounds: int) -> Rows:
    """Saliency, masks and instances from a recording of 28 steps, 19 layers, 11 concepts."""
    rows = []
    for size in (512, 1024, 2048):
        grid = size // 16
        scores = torch.randn(28, 19, 1, 11, grid, grid)
        levels = torch.linspace(1, 0, 29).tolist()
        made = Recording(tuple(f"c{i}" for i in range(5)), CONTRAST, scores, tuple(levels[:-1]), tuple(1 - x for x in levels[:-1]),
                         tuple(range(19)), 19, "output", "flux1", flux1.DEFAULTS, (size, size))
        maps, picture, pairs = saliency(made), torch.rand(1, size, size, 3), touching(size)
        runs = {"saliency from a recording": lambda: saliency(made), "mask": lambda: masks.mask(maps, "c0", "argmax"),
                "mask, refined": lambda: masks.mask(maps, "c0", "argmax", image=picture),
                "mask, auto, refined": lambda: masks.mask(maps, "c0", image=picture),
                "of which contrast words are weighed": lambda: masks.against_prevailing(maps),
                "instances of a mask of eight things": lambda: regions.instances(pairs)}
        took = InTurns(rounds, **runs)
        rows += [(f"{name}, {size} x {size}", took.seconds(name), "s" + (", budget 0.2" if size == 1024 else "")) for name in runs]
        if size == 1024:
            rows += [(f"extra process memory at peak, {name}, {size} x {size}", memory.peak(run, beyond=True), "MB")
                     for name, run in runs.items()]
        rows.append((f"recording, {size} x {size}, 11 concepts", scores.numel() * 4 / 1e6, "MB" + (", budget 100" if size == 1024 else "")))
    return rows


def touching(size: int) -> torch.Tensor:
    """A mask size x size of four pairs of discs that touch."""
    y, x = torch.meshgrid(*[torch.arange(size) / size] * 2, indexing="ij")
    discs = [(y - down) ** 2 + (x - right) ** 2 < 0.11**2 for down in (0.25, 0.75) for right in (0.14, 0.35, 0.64, 0.85)]
    return torch.stack(discs).any(dim=0).float()
