"""Masks an artist can use."""

import pytest
import torch

from concept_saliency.core.masks import METHODS, Shaping, feather, mask, refine, shape
from concept_saliency.core.saliency import Saliency


def disc(size=64, radius=20.0):
    place = torch.arange(size) - (size - 1) / 2
    return place[:, None].square() + place[None].square() <= radius**2


@pytest.fixture
def one() -> Saliency:
    maps = torch.rand(2, 2, 4, 6, generator=torch.Generator().manual_seed(1)) * 0.5
    rest = 1 - maps.sum(1, keepdim=True)
    return Saliency(("cat", "dog"), maps, (60, 90), (64, 96), maps.amax((2, 3)), ("sky",), rest)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_one_mask_a_picture(one, method):
    result = mask(one, "cat + dog", method, 0.4)
    assert result.shape == (2, 60, 90) and result.dtype == torch.float32
    assert method == "soft" or set(result.unique().tolist()) <= {0.0, 1.0}


def test_percentile_keeps_the_strongest_share(one):
    assert mask(one, "cat", "percentile", 0.75).mean().item() == pytest.approx(0.25, abs=0.01)


def test_grow_moves_the_edge_by_pixels():
    for grow in (5, -5):
        grown = shape(disc(), Shaping(grow=grow))
        expected = disc(radius=20.0 + grow).float()
        assert (grown - expected).abs().mean() < 0.02
    nothing = torch.zeros(8, 8, dtype=torch.bool)
    assert not shape(nothing, Shaping(grow=5)).any() and shape(~nothing, Shaping(grow=-5)).all()


def test_islands_go_and_holes_are_filled():
    inside = disc()
    inside[32, 32] = False
    inside[2, 2] = True
    assert torch.equal(shape(inside, Shaping(min_area=2, fill_holes=True)), disc().float())


def test_feather_fades_the_edge_and_nothing_else():
    soft = shape(disc(), Shaping(feather=6))
    assert (soft[disc(radius=13)] == 1).all() and (soft[~disc(radius=27)] == 0).all() and 0.3 < soft[disc(radius=20)].min() < 0.7
    frame = torch.zeros(40, 40)
    frame[:, :20] = 1
    assert (feather(frame, 6)[:, :13] == 1).all(), "a mask that touches the picture's frame does not fade there"
    assert torch.allclose(shape(disc(), Shaping(feather=6, invert=True)), 1 - soft, atol=1e-5)


def test_refinement_follows_the_picture():
    truth = disc(128, 40.0).float()
    coarse = torch.nn.functional.avg_pool2d(truth[None, None], 16)
    blurred = torch.nn.functional.interpolate(coarse, scale_factor=16, mode="bilinear")
    image = (0.2 + 0.6 * truth)[None, ..., None].expand(-1, -1, -1, 3)
    refined = refine(blurred, image)

    def error(maps):
        return ((maps[0, 0] > 0.5).float() - truth).abs().mean()

    assert error(refined) < 0.6 * error(blurred)
    with pytest.raises(ValueError, match="of 64 x 64 pixels, but the saliency is of 1 of 128 x 128"):
        refine(blurred, image[:, :64, :64])


def test_the_smallest_picture_works():
    tiny = Saliency(("cat",), torch.ones(1, 1, 1, 1), (1, 1), (16, 16), torch.ones(1, 1), (), torch.ones(1, 0, 1, 1))
    for method in METHODS:
        assert mask(tiny, "", method, 0.5, Shaping(grow=3, feather=4, fill_holes=True, min_area=1), torch.ones(1, 1, 1, 3)).shape == (1, 1, 1)
