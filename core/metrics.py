"""Segmentation metrics, as the paper's evaluation code computes them (ConceptAttention, experiments/imagenet_segmentation)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass
class SegmentationMetrics:
    """Pixel accuracy, mIoU and mean AP, accumulated over pictures.

    The authors' code scores two planes at once, the background's and the object's, and counts every
    value (0 and 1) as a class over both planes together; the paper's figures are of this kind. Both
    classes then have the same IoU, correct / (2 labelled - correct).
    """

    correct: int = 0
    labelled: int = 0
    precisions: list[float] = field(default_factory=list)

    def add(self, coefficients: Tensor, label: Tensor, counted: Tensor | None = None) -> None:
        """One picture: coefficients h x w of any scale, label H x W bool; counted: H x W bool, all if not given.

        The mask is where the coefficients exceed their mean; mask and min-max scaled coefficients are
        enlarged to the label's size by nearest neighbour, so that it is enough to count each cell's pixels.
        """
        from sklearn.metrics import average_precision_score

        coefficients = coefficients.double()
        number = torch.arange(coefficients.numel(), dtype=torch.float64).view(1, 1, *coefficients.shape)
        cells = interpolate(number, size=label.shape, mode="nearest").long().flatten()
        counted = torch.ones_like(label, dtype=torch.bool) if counted is None else counted
        total = torch.bincount(cells[counted.flatten()], minlength=coefficients.numel()).numpy()
        inside = torch.bincount(cells[(label.bool() & counted).flatten()], minlength=coefficients.numel()).numpy()
        above = (coefficients > coefficients.mean()).flatten().numpy()
        self.correct += int(np.where(above, inside, total - inside).sum())
        self.labelled += int(total.sum())
        span = coefficients.max() - coefficients.min()
        scaled = ((coefficients - coefficients.min()) / (span or 1)).flatten().numpy()
        outside, scores = total - inside, (1 - scaled, scaled)  # the background's plane, then the object's
        truth = np.repeat((1, 0, 1, 0), total.size)
        weights = np.concatenate((outside, inside, inside, outside))
        self.precisions.append(float(average_precision_score(truth, np.concatenate((scores[0], scores[0], scores[1], scores[1])),
                                                             sample_weight=weights)))

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled

    @property
    def mean_iou(self) -> float:
        return self.correct / (2 * self.labelled - self.correct)

    @property
    def mean_average_precision(self) -> float:
        return float(np.mean(self.precisions))


@dataclass
class ClassMetrics:
    """Pixel accuracy and mIoU of several classes at once, accumulated over pictures (experiments/pascal_voc_segmentation).

    mIoU is the mean over all classes that were there or were found, the background being one of them.
    """

    correct: int = 0
    labelled: int = 0
    shared: Counter = field(default_factory=Counter)
    covered: Counter = field(default_factory=Counter)
    mean_average_precision: float = float("nan")  # not defined here

    def add(self, maps: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        """One picture. maps: C x h x w, the rows `names`, then their rivals; labels: H x W, i + 1 where names[i] is,
        0 for the background, negative for pixels that do not count. The strongest row wins a pixel."""
        winner = maps.argmax(dim=0) + 1
        winner = torch.where(winner > len(names), 0, winner)
        found = interpolate(winner[None, None].double(), size=labels.shape, mode="nearest")[0, 0].long()[labels >= 0]
        labels = labels[labels >= 0]
        self.correct += int((found == labels).sum())
        self.labelled += len(labels)
        for number, name in enumerate(("", *names)):
            self.shared[name] += int(((found == number) & (labels == number)).sum())
            self.covered[name] += int(((found == number) | (labels == number)).sum())

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled

    @property
    def mean_iou(self) -> float:
        return float(np.mean([self.shared[name] / covered for name, covered in self.covered.items() if covered]))


def iou(predicted: Tensor, label: Tensor) -> float:
    """IoU of two masks H x W bool. 1.0 when both are empty."""
    union = (predicted | label).sum()
    return float((predicted & label).sum() / union) if union else 1.0


def boundary_iou(predicted: Tensor, label: Tensor, share: float = 0.02) -> float:
    """IoU of the two masks' inner boundary bands, H x W bool each (Cheng et al. 2021).

    The bands are `share` of the picture's diagonal wide. 1.0 when both masks are empty.
    """
    from scipy.ndimage import distance_transform_edt

    width = max(1, round(share * float(np.hypot(*label.shape))))
    bands = []
    for mask in (predicted, label):
        inside = np.pad(mask.numpy().astype(bool), 1)  # the picture's frame counts as an edge
        bands.append((inside & (distance_transform_edt(inside) <= width))[1:-1, 1:-1])
    union = (bands[0] | bands[1]).sum()
    return float((bands[0] & bands[1]).sum() / union) if union else 1.0
