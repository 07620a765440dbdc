"""The evaluation in steps that can be told as they come and gone on from: one forward pass over all pictures at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..core.metrics import bootstrapped
from .datasets import DataSet
from .measure import Measured, Setting, measure, one_pass
from .models import Model
from .place import Lines
from .protocols import Rules


class Figures(NamedTuple):
    """What was measured of one setting; see core/metrics.py. Of things: their mean, and the ends of its bootstrap interval."""

    pixel_accuracy: float
    mean_iou: float
    mean_average_precision: float
    thing_iou: tuple[float, float, float]
    thing_precision: tuple[float, float, float]

    @classmethod
    def of(cls, found: Measured) -> Figures:
        pooled, things = found
        return cls(pooled.pixel_accuracy, pooled.mean_iou, pooled.mean_average_precision, bootstrapped(things.ious),
                   bootstrapped(things.precisions))


class Ledger(Lines):
    """The figures so far, in a file where one is given."""

    def __init__(self, file: Path | None, asked: dict):
        super().__init__(file, asked, "--resume")
        self.figures = {(line["label"], Setting(*line["setting"])): Figures(*line["figures"]) for line in self.lines}

    def keep(self, label: str, setting: Setting, figures: Figures) -> None:
        self.figures[label, setting] = figures
        self.add({"label": label, "setting": setting, "figures": figures})


def measured(model: Model, data: DataSet, picks: Sequence[int], settings: Iterable[Setting], contrast: str, rules: Rules, samples: int,
             label: str, ledger: Ledger, tell: Callable[[dict[Setting, Figures]], None], things: bool = True) -> dict[Setting, Figures]:
    """What measure() gives, but for what is in the ledger already; `tell` is given the figures of each step as it ends."""
    groups = [list(group) for _, group in groupby(sorted(settings, key=one_pass), key=one_pass)]
    for number, group in enumerate(groups, 1):
        if missing := [setting for setting in group if (label, setting) not in ledger.figures]:
            found = measure(model, data, picks, missing, contrast, rules, samples, f"{label}, step {number} of {len(groups)}", things)
            for setting, metrics in found.items():
                ledger.keep(label, setting, Figures.of(metrics))
        tell({setting: ledger.figures[label, setting] for setting in group})
    return {setting: ledger.figures[label, setting] for group in groups for setting in group}


def check(data: DataSet, picks: Iterable[int]) -> None:
    """Read every picture once. Raises ValueError that names all which cannot be used, before the first pass is spent."""
    wrong = []
    for pick in tqdm(picks, desc="reading", unit="picture", file=sys.stderr):
        try:
            data[pick]
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join([*dict.fromkeys(wrong), f"{len(wrong)} pictures cannot be used; nothing was measured."]))
