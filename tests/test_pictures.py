"""The size in which the model is shown a picture."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concept_saliency.core.pictures import MEGAPIXEL, model_size, resized

SIDES = st.integers(1, 20_000)


@pytest.mark.parametrize("size, expected", [
    ((1024, 1024), (1024, 1024)), ((832, 1216), (832, 1216)), ((640, 1536), (640, 1536)), ((672, 1568), (672, 1568)),
    ((75, 100), (75, 100)), ((3000, 4000), (864, 1152)), ((4032, 3024), (1152, 864)), ((1000, 1500), (832, 1248)),
    ((1080, 1920), (720, 1280)), ((2048, 2048), (1024, 1024)), ((1, 2**20), (16, 2**16))])
def test_sizes_people_use(size, expected):
    assert model_size(*size) == expected


@given(SIDES, SIDES, st.sampled_from([0.25, 1.0, 2.0]))
def test_any_size(height, width, megapixels):
    """Never beyond the limit, whole tokens, as near the picture's aspect as these allow, and the same turned round."""
    found = model_size(height, width, megapixels)
    assert model_size(width, height, megapixels) == found[::-1]
    tokens = [math.ceil(side / 16) for side in found]
    assert tokens[0] * tokens[1] * 256 <= 1.05 * megapixels * MEGAPIXEL
    if found != (height, width):
        assert all(side % 16 == 0 for side in found)
        if max(height, width) <= 16 * min(height, width):
            assert found[0] * found[1] >= 0.75 * megapixels * MEGAPIXEL
            assert abs(math.log(found[0] * width / (found[1] * height))) < 0.02
    assert model_size(height, width, 0) == (height, width)


@pytest.mark.parametrize("megapixels", [-1.0, math.nan, math.inf])
def test_a_limit_that_is_none(megapixels):
    with pytest.raises(ValueError, match="expected 0 .the picture's own size. or more"):
        model_size(64, 64, megapixels)


def test_resized_without_aliasing():
    """A chequerboard of single pixels becomes grey, not one of its colours; values stay in 0..1."""
    board = torch.ones(256, 256)
    board[::2, ::2] = board[1::2, 1::2] = 0
    small = resized(board.expand(1, 3, -1, -1), (64, 64))
    assert small.shape == (1, 3, 64, 64) and (small[..., 4:-4, 4:-4] - 0.5).abs().max() < 0.02
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1
    assert 0 <= resized(edge, (32, 48)).min() and resized(edge, (32, 48)).max() <= 1
    assert resized(edge, (64, 64)) is edge
