"""Single things on the hard world: how what is found is matched with what is there."""

import pytest
import torch

from concept_saliency.cli import evaluate_instances as ways
from concept_saliency.core import regions
from concept_saliency.demo.hard_world import make_hard_scene


def square(left, width, size=(20, 60)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[5:15, left:left + width] = True
    return mask


def test_every_thing_is_matched_with_one_that_was_found_and_none_with_two():
    there = [square(0, 10), square(20, 10)]
    assert ways.matched([square(20, 10), square(0, 10)], there) == [1, 1], "in whatever order"
    assert ways.matched([square(0, 10), square(0, 5), square(50, 5)], there) == [1, 0]
    assert ways.matched([square(0, 30)], there) == [pytest.approx(1 / 3), 0], "both in one is one found"
    assert ways.matched([], there) == [0, 0]


def test_pieces_stand_where_they_were():
    large, small = square(20, 12), square(0, 10)
    first, second = ways.placed(regions.islands((large | small).float()), large.shape)
    assert torch.equal(first, large) and torch.equal(second, small)


def test_what_is_found_where_it_is_counts_fully_and_a_crumb_counts_against_the_islands():
    scene = make_hard_scene(0)
    label = torch.full((256, 256), regions.NOTHING)
    for row, thing in enumerate(scene.things):
        label[torch.from_numpy(scene.masks[thing])] = row
    assert scene.kind == "twins"
    found = ways.figures(label, scene)
    assert found == {(way, metric): [1.0] * count for way in ways.WAYS for metric, count in zip(ways.METRICS, (1, 1, 2))}
    row, column = (label == regions.NOTHING).nonzero()[0].tolist()
    label[row:row + 9, column:column + 9] = 1  # a crumb of the one beside the twins
    found = ways.figures(label, scene)
    assert found["islands", ways.ONE] == [0] and found["instances", ways.ONE] == [1]
    printed = list(ways.table("twins", [found, found]))
    assert len(printed) == 4 and printed[2].startswith("| islands | 1.000") and "| 1.000 (+1.000: +1.000 to +1.000) |" in printed[3]
