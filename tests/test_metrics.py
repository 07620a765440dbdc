"""Figures of masks, by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from concept_saliency.core.metrics import (
    ClassMetrics,
    SegmentationMetrics,
    ThingMetrics,
    bootstrapped,
    bootstrapped_auroc,
    boundary_iou,
    iou,
)


def block(rows: slice, columns: slice, size=(10, 10)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def test_iou():
    left, top = block(slice(None), slice(0, 5)), block(slice(0, 5), slice(None))
    assert iou(left, top) == pytest.approx(25 / 75) and iou(left, left) == 1 and iou(left, ~left) == 0
    nothing = torch.zeros(10, 10, dtype=torch.bool)
    assert iou(nothing, nothing) == 1 and iou(nothing, left) == 0


def test_the_frame_is_an_edge_of_what_touches_it():
    """Bands of one pixel. The left half's is the rim of 10 x 5, 26 pixels, that of the whole picture the rim of 10 x 10, 36. They
    share the left side and five of top and bottom each: 10 + 2 * 4 = 18 pixels, of 26 + 36 - 18."""
    left, everything = block(slice(None), slice(0, 5)), torch.ones(10, 10, dtype=torch.bool)
    assert boundary_iou(left, everything) == pytest.approx(18 / 44)
    assert boundary_iou(everything, everything) == 1


def test_the_band_is_two_hundredths_of_the_diagonal_wide():
    """300 x 400 pixels: the diagonal is 500, the band 10. Of a square of 100 pixels that is 100^2 - 80^2; of one that lies 5 further
    to the right, the same, and both share what can be counted row by row."""
    one, other = block(slice(100, 200), slice(100, 200), (300, 400)), block(slice(100, 200), slice(105, 205), (300, 400))
    band = 100 * 100 - 80 * 80
    shared = 2 * 10 * 95 + 80 * 2 * 5  # above and below 95 wide; beside each of the two sides 5 wide
    assert boundary_iou(one, other) == pytest.approx(shared / (2 * band - shared))
    assert boundary_iou(one, other, share=0.04) > boundary_iou(one, other)


def test_nothing_has_no_edge():
    nothing, something = torch.zeros(8, 8, dtype=torch.bool), block(slice(2, 4), slice(2, 4), (8, 8))
    assert boundary_iou(nothing, nothing) == 1 and boundary_iou(nothing, something) == 0


def test_classes_at_once_by_hand():
    """Four pixels: a cat, a cat, a dog, background. Found: cat, dog, dog, and a rival's, which is background.

    IoU: background 1 of 1, cat 1 of 2, dog 1 of 2. A pixel that nobody labelled does not count, whatever is found there.
    """
    cat, dog, sky = [[0.8, 0.1, 0.1, 0.1, 0.9]], [[0.1, 0.7, 0.6, 0.2, 0.0]], [[0.1, 0.2, 0.3, 0.7, 0.1]]
    figures = ClassMetrics()
    figures.add(torch.tensor([cat, dog, sky]), torch.tensor([[1, 1, 2, 0, -1]]), ("cat", "dog"))
    assert figures.pixel_accuracy == 3 / 4 and figures.mean_iou == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    figures.add(torch.tensor([[[0.0, 0.7, 0.6, 0.2, 0.0]], sky]), torch.tensor([[0, 1, 1, 0, -1]]), ("dog",))
    assert figures.pixel_accuracy == 7 / 8 and figures.mean_iou == pytest.approx((3 / 3 + 1 / 2 + 3 / 4) / 3), "all pictures together"


def test_a_flat_map_finds_nothing():
    """No part of it exceeds its mean: every pixel is called background."""
    figures = SegmentationMetrics()
    figures.add(torch.full((2, 2), 0.5), torch.tensor([[True, False], [False, False]]))
    assert figures.pixel_accuracy == 3 / 4


def test_things_without_a_labelled_pixel_do_not_hide_those_after_them():
    """A thing in the upper row, one that lies where nobody labelled, and one in the lower left."""
    upper, lower = torch.tensor([[True, True], [False, False]]), torch.tensor([[False, False], [True, False]])
    unlabelled = torch.tensor([[False, False], [False, True]])
    figures = ThingMetrics()
    figures.add(((unlabelled, unlabelled.float(), unlabelled), (upper, upper.float(), upper), (upper, upper.float(), lower)), ~unlabelled)
    assert figures.ious == [[1.0, 0.0]] and figures.precisions == [[1.0, pytest.approx(1 / 3)]]
    figures.add([(unlabelled, unlabelled.float(), unlabelled)], ~unlabelled)
    assert len(figures.ious) == 1, "a picture of such things alone"


def test_an_interval_holds_the_mean_and_pictures_are_drawn_whole():
    mean, low, high = bootstrapped([[0.0, 0.0, 0.0], [1.0]])
    assert (mean, low, high) == (0.25, 0.0, 1.0), "one picture or the other; of things drawn alone it would be narrower"
    assert all(value != value for value in bootstrapped([])) and len(bootstrapped([])) == 3
    assert bootstrapped([[0.5]] * 4) == (0.5, 0.5, 0.5)


def test_an_interval_leaves_out_the_same_share_at_both_ends():
    """Of two pictures of 0 and of 1, a quarter of the draws has 0, a half 0.5 and a quarter 1."""
    for confidence, interval in ((0.4, (0.5, 0.5)), (0.6, (0.0, 1.0))):
        assert bootstrapped([[0.0], [1.0]], confidence=confidence)[1:] == interval


def test_a_published_interval_can_be_made_again():
    """A thousand draws, always the same, of which 95 of a hundred lie within."""
    values = [[number * number % 31 / 31] for number in range(30)]
    assert bootstrapped(values) == pytest.approx((0.398925, 0.307500, 0.494677), abs=5e-6)


def test_the_scale_and_the_zero_of_coefficients_do_not_matter():
    label = block(slice(0, 4), slice(0, 7))
    coefficients = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) + 0.3 * label
    first, other = SegmentationMetrics(), SegmentationMetrics()
    first.add(coefficients, label)
    other.add(8 * coefficients - 16, label)
    assert (other.correct, other.mean_average_precision) == (first.correct, pytest.approx(first.mean_average_precision))


def test_presence_is_ranked_over_all_pictures_as_sklearn_does():
    """By hand: of the four pairs of one that is there and one that is not, three are in order."""
    area, low, high = bootstrapped_auroc([[(True, 0.9), (False, 0.2)], [(True, 0.4), (False, 0.6)]])
    assert area == 0.75 and 0 <= low <= area <= high <= 1
    rng = np.random.default_rng(1)
    pictures, others = ([[(bool(i % 2), float(v)) for i, v in enumerate(rng.integers(0, 6, 5))] for _ in range(7)] for _ in range(2))
    picks = np.random.default_rng(0).integers(7, size=(40, 7))

    def areas(scenes):
        return np.array([roc_auc_score(*zip(*(pair for i in pick for pair in scenes[i]))) for pick in (range(7), *picks)])

    for reference in (None, others):
        values = areas(pictures) - (areas(reference) if reference else 0)
        expected = (values[0], *np.quantile(values[1:], (0.025, 0.975)))
        assert bootstrapped_auroc(pictures, reference, draws=40) == pytest.approx(expected)
