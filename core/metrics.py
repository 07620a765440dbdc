"""Segmentation metrics, as the paper's evaluation code computes them (ConceptAttention, experiments/imagenet_segmentation)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

Presences = Sequence[tuple[bool, float]]  # of each concept of a picture: whether it is there, and its presence


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
        coefficients = coefficients.double()
        inside, outside = pixels_of_cells(coefficients, label, counted)
        above = (coefficients > coefficients.mean()).flatten().numpy()
        self.correct += int(np.where(above, inside, outside).sum())
        self.labelled += int((inside + outside).sum())
        low, high = coefficients.min(), coefficients.max()
        scaled = ((coefficients - low) / (high - low)).flatten().numpy() if high > low else np.zeros(inside.size)
        background = 1 - scaled if high > low else scaled  # their 0 / 0 is read as 0 in both planes
        self.precisions.append(precision_of_planes(background, scaled, inside, outside))

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
    """Pixel accuracy and mIoU of several classes at once, accumulated over pictures.

    mIoU is the mean over all classes that were there or were found, the background being one of them.
    """

    correct: int = 0
    labelled: int = 0
    shared: Counter = field(default_factory=Counter)
    covered: Counter = field(default_factory=Counter)
    mean_average_precision: float = float("nan")  # not defined here

    def add(self, maps: Tensor, labels: Tensor, names: Sequence[Hashable]) -> None:
        """One picture. maps: C x h x w, the rows `names`, then their rivals; labels: H x W, i + 1 where names[i] is,
        0 for the background, negative for pixels that do not count. The strongest row wins a pixel."""
        winner = maps.argmax(dim=0) + 1
        found = enlarged(torch.where(winner > len(names), 0, winner), labels.shape)[labels >= 0]
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


@dataclass
class ThingMetrics:
    """IoU of every thing's own mask and AP of its own plane, each thing counting as much as any other, however large.

    One entry a picture: the figures of the things in it.
    """

    ious: list[list[float]] = field(default_factory=list)
    precisions: list[list[float]] = field(default_factory=list)

    def add(self, things: Iterable[tuple[Tensor, Tensor, Tensor]], counted: Tensor) -> None:
        """One picture: of each thing its mask h x w bool, its coefficients h x w, and where it is H x W bool.

        counted: H x W bool. A thing without a pixel that counts is left out, and so is a picture of such things alone.
        """
        from sklearn.metrics import average_precision_score

        found: list[tuple[float, float]] = []
        for mask, coefficients, there in things:
            if not (there & counted).any():
                continue
            inside, outside = pixels_of_cells(coefficients, there, counted)
            scores = coefficients.double().flatten().numpy()
            precision = average_precision_score(np.repeat((True, False), inside.size), np.tile(scores, 2),
                                                sample_weight=np.concatenate((inside, outside)))
            found.append((iou(enlarged(mask, there.shape) & counted, there & counted), float(precision)))
        if found:
            ious, precisions = zip(*found)
            self.ious.append(list(ious))
            self.precisions.append(list(precisions))


def bootstrapped(pictures: Sequence[Sequence[float]], draws: int = 1000, confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of all values, and the ends of its bootstrap interval; NaN where there is none.

    pictures: the values of each picture, which are drawn together, for things in one picture are no independent cases.
    """
    if not pictures:
        return (float("nan"),) * 3
    sums, counts = np.array([sum(values) for values in pictures]), np.array([len(values) for values in pictures])
    picks = np.random.default_rng(0).integers(len(pictures), size=(draws, len(pictures)))
    low, high = np.quantile(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(sums.sum() / counts.sum()), float(low), float(high)


def bootstrapped_auroc(pictures: Sequence[Presences], reference: Sequence[Presences] | None = None,
                       draws: int = 1000) -> tuple[float, float, float]:
    """How well presence tells what is there from what is absent: the area under the ROC curve (sklearn's roc_auc_score), and the ends
    of its 95% bootstrap interval; or all that of its difference to the reference's on the same pictures.

    Pictures are drawn together, as by `bootstrapped`. Over all of them, some concepts are there and some are not.
    """
    picks = [np.arange(len(pictures)), *np.random.default_rng(0).integers(len(pictures), size=(draws, len(pictures)))]
    times = np.array([np.bincount(pick, minlength=len(pictures)) for pick in picks])
    values = _aurocs(pictures, times) - (_aurocs(reference, times) if reference is not None else 0)
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return float(values[0]), float(low), float(high)


def _aurocs(pictures: Sequence[Presences], times: np.ndarray) -> np.ndarray:
    """The share of pairs of a concept that is there and one that is absent that are in this order, equal ones by half (Mann and
    Whitney 1947); a value for each row of `times`, how often each picture is taken."""
    there, absent = ([np.array([value for is_there, value in one if is_there == wanted]) for one in pictures] for wanted in (True, False))
    in_order = np.array([[np.sum(a[:, None] > b) + np.sum(a[:, None] == b) / 2 for b in absent] for a in there])
    pairs = times @ np.array([len(a) for a in there]) * (times @ np.array([len(b) for b in absent]))
    return ((times @ in_order) * times).sum(axis=1) / pairs


def enlarged(cells: Tensor, size: Sequence[int]) -> Tensor:
    """h x w of any type -> `size` (H, W), by nearest neighbour."""
    return interpolate(cells[None, None].double(), size=tuple(size), mode="nearest")[0, 0].to(cells.dtype)


def pixels_of_cells(cells: Tensor, label: Tensor, counted: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of `label` H x W bool are inside and outside of it in each of the cells h x w that is enlarged to it.

    counted: H x W bool, the others are in neither.
    """
    counted = torch.ones_like(label, dtype=torch.bool) if counted is None else counted
    numbers = enlarged(torch.arange(cells.numel()).view_as(cells), label.shape)
    inside = torch.bincount(numbers[label.bool() & counted], minlength=cells.numel())
    outside = torch.bincount(numbers[~label.bool() & counted], minlength=cells.numel())
    return inside.numpy(), outside.numpy()


def precision_of_planes(background: np.ndarray, foreground: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """AP of two planes of scores at once, one value a cell each, with the cells' pixels as pixels_of_cells counts them."""
    from sklearn.metrics import average_precision_score

    truth = np.repeat((1, 0, 1, 0), inside.size)
    weights = np.concatenate((outside, inside, inside, outside))
    return float(average_precision_score(truth, np.concatenate((background, background, foreground, foreground)), sample_weight=weights))


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
        bands.append(inside & (distance_transform_edt(inside) <= width))
    union = (bands[0] | bands[1]).sum()
    return float((bands[0] & bands[1]).sum() / union) if union else 1.0


def leakage(plane: Tensor, others: Tensor) -> float:
    """The share of a concept's mass, H x W from 0, that lies where other concepts are, H x W bool. 0.0 for a plane of zeros.

    What AnchorDiff (arXiv 2605.26460) calls concept leakage: a target's response on what is not the target.
    """
    whole = plane.sum()
    return float(plane[others].sum() / whole) if whole else 0.0
