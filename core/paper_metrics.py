"""The scores of the authors' PascalVOC experiments, to the letter (ConceptAttention, experiments/pascal_voc_segmentation).

Where their code does what its authors cannot have meant, so does this. core/metrics.py is what we think right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .metrics import enlarged, pixels_of_cells, precision_of_planes


def winners(maps: Tensor, numbers: Sequence[int]) -> Tensor:
    """maps C x h x w, rows for the classes `numbers` (rising), then their rivals -> the class of every cell, 0 for a rival's.

    A rival wins a tie. Row numbers are replaced by class numbers one class after another in the same picture, so that
    a class whose number is the row number of a later one becomes that later one: with five rivals a bus (6)
    is lost to whatever class comes second.
    """
    rivals = len(maps) - len(numbers)
    found = torch.cat((maps[len(numbers):], maps[:len(numbers)])).argmax(dim=0)
    found[found < rivals] = 0
    for row, number in enumerate(numbers, rivals):
        found[found == row] = number
    return found


@dataclass
class SingleClass:
    """run_single_class_split_experiment.py: all classes of a picture are one, the object. The strongest row makes the mask.

    Accuracy is over both planes at once; the background's calls an outline neither right nor left out, so that it counts as
    half wrong. mIoU is the mean of the background's and the object's IoU, over all pictures together, without outlines. AP is of
    both planes at once, the coefficients as they are and 1 less them, whatever their scale.
    """

    correct: int = 0
    labelled: int = 0
    shared: Counter = field(default_factory=Counter)
    covered: Counter = field(default_factory=Counter)
    precisions: list[float] = field(default_factory=list)

    def add(self, maps: Tensor, labels: Tensor, numbers: Sequence[int]) -> None:
        """One picture. maps: C x h x w, rows for the classes `numbers`, then their rivals; labels: H x W, above 0 where a class
        is, 0 for the background, negative on outlines."""
        found, there, counted = enlarged(winners(maps, numbers) > 0, labels.shape), labels > 0, labels >= 0
        self.correct += 2 * int(((found == there) & counted).sum())
        self.labelled += labels.numel() + int(counted.sum())
        for value in (False, True):
            self.shared[value] += int(((found == value) & (there == value) & counted).sum())
            self.covered[value] += int((((found == value) | (there == value)) & counted).sum())
        last = maps[len(numbers) - 1].double()
        scores = last.flatten().numpy()
        self.precisions.append(precision_of_planes(1 - scores, scores, *pixels_of_cells(last, there, counted)))

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled

    @property
    def mean_iou(self) -> float:
        return float(np.mean([self.shared[value] / max(1, self.covered[value]) for value in (False, True)]))

    @property
    def mean_average_precision(self) -> float:
        return float(np.mean(self.precisions))


@dataclass
class SeveralClasses:
    """run_multi_class_seg_experiment.py: every class for itself, by its number. The strongest row makes the mask.

    Outlines are left out of the accuracy, but what is found on them counts as found wrongly in its class's IoU. mIoU is the mean
    over all classes that were there or were found, the background being one of them, in all pictures together.
    """

    correct: int = 0
    labelled: int = 0
    shared: Counter = field(default_factory=Counter)
    covered: Counter = field(default_factory=Counter)
    mean_average_precision: float = float("nan")  # not defined there

    def add(self, maps: Tensor, labels: Tensor, numbers: Sequence[int]) -> None:
        """One picture. maps: C x h x w, rows for the classes `numbers`, then their rivals; labels: H x W, i + 1 where
        numbers[i] is, 0 for the background, negative on outlines."""
        found = enlarged(winners(maps, numbers), labels.shape)
        truth = torch.tensor([0, *numbers, -1])[labels.clamp(min=-1)]
        self.correct += int((found == truth).sum())
        self.labelled += int((truth >= 0).sum())
        for number in set(found.unique().tolist()) | set(numbers) | {0}:
            self.shared[number] += int(((found == number) & (truth == number)).sum())
            self.covered[number] += int(((found == number) | (truth == number)).sum())

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled

    @property
    def mean_iou(self) -> float:
        found = [self.shared[number] / covered for number, covered in self.covered.items() if covered]
        return sum(found) / (len(found) + 1e-6)
