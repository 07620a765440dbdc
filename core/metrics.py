"""Segmentation metrics, as the paper's evaluation code computes them (ConceptAttention, experiments/imagenet_segmentation)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass
class SegmentationMetrics:
    """Pixel accuracy, mIoU and mean AP, accumulated over pictures.

    Two planes are scored at once, the background's and the object's, and every value (0 and 1) counts
    as a class over both planes together. This is what the authors' code does and so what the paper's
    figures are: the two classes then have the same IoU, accuracy / (2 - accuracy).
    """

    correct: int = 0
    labelled: int = 0
    intersection: np.ndarray = field(default_factory=lambda: np.zeros(2, dtype=np.int64))
    union: np.ndarray = field(default_factory=lambda: np.zeros(2, dtype=np.int64))
    precisions: list[float] = field(default_factory=list)

    def add(self, coefficients: Tensor, label: Tensor) -> None:
        """One picture: coefficients h x w of any scale, label H x W bool.

        The mask is where the coefficients exceed their mean; mask and min-max scaled coefficients are
        enlarged to the label's size by nearest neighbour.
        """
        from sklearn.metrics import average_precision_score

        coefficients = coefficients.float()
        above = (coefficients > coefficients.mean()).float()
        span = coefficients.max() - coefficients.min()
        scaled = (coefficients - coefficients.min()) / span if span > 0 else torch.zeros_like(coefficients)
        scaled, predicted = interpolate(torch.stack((scaled, above))[None], size=label.shape, mode="nearest")[0].numpy()
        predicted, truth = predicted.astype(bool), label.bool().numpy()
        predicted, truth = np.stack((~predicted, predicted)), np.stack((~truth, truth))
        self.labelled += truth.size
        self.correct += int((predicted == truth).sum())
        for value in (False, True):
            p, t = predicted == value, truth == value
            self.intersection[int(value)] += int((p & t).sum())
            self.union[int(value)] += int((p | t).sum())
        scores = np.stack((1 - scaled, scaled))
        self.precisions.append(float(average_precision_score(truth.ravel(), scores.ravel())))

    @property
    def pixel_accuracy(self) -> float:
        return self.correct / self.labelled

    @property
    def mean_iou(self) -> float:
        return float((self.intersection / self.union).mean())

    @property
    def mean_average_precision(self) -> float:
        return float(np.mean(self.precisions))
