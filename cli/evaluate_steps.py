"""The evaluation in steps that can be told as they come and gone on from: one forward pass over all pictures at a time."""

from __future__ import annotations

import json
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
from .place import replace_text
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


class Ledger:
    """The figures so far, one line of JSON each, in a file where one is given.

    asked: what the figures depend on; it is the file's first line. Raises ValueError for a file of other figures.
    """

    def __init__(self, file: Path | None, asked: dict):
        self.file, self.figures = file, {}
        if file is None:
            return
        try:
            found = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]] if file.exists() else []
        except ValueError as error:
            raise ValueError(f"--resume is '{file}', which is damaged or no file of figures: {error}. Give another.") from error
        if found and found[0] != asked:
            raise ValueError(f"--resume is '{file}', which holds the figures of another evaluation ({_differing(found[0], asked)}). "
                             "Give another.")
        for line in found[1:]:
            self.figures[line["label"], Setting(*line["setting"])] = Figures(*line["figures"])
        replace_text(file, "".join(json.dumps(line) + "\n" for line in (found or [asked])))  # less a line that was not finished

    def add(self, label: str, setting: Setting, figures: Figures) -> None:
        self.figures[label, setting] = figures
        if self.file:
            with self.file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({"label": label, "setting": setting, "figures": figures}) + "\n")


def _differing(found: dict, asked: dict) -> str:
    return ", ".join(key for key in asked if not isinstance(found, dict) or found.get(key) != asked[key])


def measured(model: Model, data: DataSet, picks: Sequence[int], settings: Iterable[Setting], contrast: str, rules: Rules, samples: int,
             label: str, ledger: Ledger, tell: Callable[[dict[Setting, Figures]], None], things: bool = True) -> dict[Setting, Figures]:
    """What measure() gives, but for what is in the ledger already; `tell` is given the figures of each step as it ends."""
    groups = [list(group) for _, group in groupby(sorted(settings, key=one_pass), key=one_pass)]
    for number, group in enumerate(groups, 1):
        if missing := [setting for setting in group if (label, setting) not in ledger.figures]:
            found = measure(model, data, picks, missing, contrast, rules, samples, f"{label}, step {number} of {len(groups)}", things)
            for setting, metrics in found.items():
                ledger.add(label, setting, Figures.of(metrics))
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
