"""Figures of masks, by hand."""

import pytest
import torch

from concept_saliency.core.metrics import boundary_iou, iou


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
