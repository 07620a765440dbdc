"""Masks an artist can use."""

import math
from dataclasses import replace

import pytest
import torch

from concept_saliency.core import regions, render
from concept_saliency.core.masks import METHODS, Shaping, against_prevailing, feather, mask, refine, shape, soft_masks, without_specks
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
    refined = refine(blurred, image, token=16)

    def error(maps):
        return ((maps[0, 0] > 0.5).float() - truth).abs().mean()

    assert error(refined) < 0.6 * error(blurred)
    with pytest.raises(ValueError, match="of 64 x 64 pixels, but the saliency is of 1 of 128 x 128"):
        refine(blurred, image[:, :64, :64], token=16)


def test_the_smallest_picture_works():
    tiny = Saliency(("cat",), torch.ones(1, 1, 1, 1), (1, 1), (16, 16), torch.ones(1, 1), (), torch.ones(1, 0, 1, 1))
    for method in METHODS:
        assert mask(tiny, "", method, 0.5, Shaping(grow=3, feather=4, fill_holes=True, min_area=1),
                    torch.ones(1, 1, 1, 3)).shape == (1, 1, 1)


def scene(height: int, width: int, token: int = 16, there: float = 0.9) -> tuple[Saliency, torch.Tensor, torch.Tensor]:
    """A bright disc on dark ground, what a model that sees it would give, and the disc itself."""
    y, x = torch.arange(height)[:, None] - (height - 1) / 2, torch.arange(width)[None] - (width - 1) / 2
    disc = (y.square() + x.square()).sqrt() <= max(1.0, min(height, width) / 4)
    rows, columns = math.ceil(height / token), math.ceil(width / token)
    cells = torch.nn.functional.interpolate(disc[None, None].float(), size=(rows, columns), mode="area")
    maps = torch.cat((0.05 + (there - 0.05) * cells, 0.02 * torch.ones_like(cells)), dim=1)
    saliency = Saliency(("disc", "nothing"), maps, (height, width), (rows * token, columns * token), maps.amax((2, 3)), ("ground",),
                        1 - maps.sum(1, keepdim=True))
    return saliency, (0.2 + 0.6 * disc.float())[None, ..., None].expand(1, -1, -1, 3), disc


BUCKETS = [(1024, 1024), (832, 1216), (1216, 832), (896, 1152), (1152, 896), (768, 1344), (1344, 768), (640, 1536), (1536, 640)]
ODD = [(513, 513), (1000, 1500), (1333, 2000), (811, 1021), (255, 257), (97, 1200), (1, 1), (1, 300), (300, 1), (17, 33)]


@pytest.mark.parametrize("height, width", BUCKETS + ODD)
def test_everything_that_is_done_with_pixels_works_at_every_size(height, width):
    saliency, image, disc = scene(height, width)
    for method in METHODS:
        found = mask(saliency, "disc", method, 0.6, Shaping(grow=1, feather=2), image)
        assert found.shape == (1, height, width) and found.min() >= 0 and found.max() <= 1
    soft = soft_masks(saliency)
    assert soft.shape == (1, 2, height, width) and soft.min() >= 0 and soft.max() <= 1
    label = regions.labels(saliency, image)
    assert label.shape == (1, height, width) and set(label.unique().tolist()) <= {-1, 0, 1}
    assert render.overlay(image, soft[:, 0]).shape == image.shape
    if min(height, width) > 200:
        found = mask(saliency, "disc", image=image)[0].bool()
        assert (found & disc).sum() / (found | disc).sum() > 0.97


@pytest.mark.parametrize("height, width", [(513, 513), (831, 1217), (1333, 2001)])
def test_an_edge_lies_where_it_lies_at_the_nearest_even_size(height, width):
    masks = []
    for size in ((height, width), (height + 1, width + 1)):
        saliency, image, _ = scene(*size)
        masks.append(mask(saliency, "disc", image=image)[0, :height, :width])
    assert (masks[0] != masks[1]).float().mean() < 0.002


def test_a_mask_has_the_size_of_a_picture_larger_than_the_model_was_shown():
    saliency, _, _ = scene(768, 1024)
    _, image, disc = scene(3000, 4000)
    found = mask(saliency.at_size((3000, 4000)), "disc", image=image)[0].bool()
    assert (found & disc).sum() / (found | disc).sum() > 0.97


def test_auto_is_empty_for_what_is_not_there():
    saliency, image, _ = scene(512, 512)
    for picture in (None, image):
        assert mask(saliency, "disc", image=picture).any() and not mask(saliency, "nothing", image=picture).any()
        assert torch.equal(mask(saliency, "disc + nothing", image=picture), mask(saliency, "disc", image=picture))
    faint, image, _ = scene(512, 512, there=0.3)
    assert not mask(faint, "disc", image=image).any(), "the ground wins everywhere"


def test_auto_leaves_out_an_island_in_which_a_rival_wins():
    saliency, image, disc = scene(512, 512)
    saliency.maps[0, 0, :4, :4] = 0.48  # half as strong as on the disc, but the look-alike is stronger
    saliency.maps[0, 1, :4, :4] = 0.52
    saliency.contrast_maps[0, 0, :4, :4] = 0
    assert mask(saliency, "disc", "otsu")[0, :50, :50].all() and not mask(saliency, "disc")[0, :80, :80].any()


def house(wall: float, floor: float = 0.0) -> Saliency:
    """A roof, and under it a wall of which `floor` has a share; the grass has everything else, but for a strip with `floor`."""
    maps = torch.zeros(1, 3, 8, 8)  # house, grass, floor
    maps[0, 1] = 1
    maps[0, :, 2:4, 2:6] = torch.tensor([0.9, 0.1, 0.0])[:, None, None]
    maps[0, :, 4:6, 2:6] = torch.tensor([wall, 1 - wall - floor, floor])[:, None, None]
    return Saliency(("house",), maps[:, :1], (128, 128), (128, 128), torch.ones(1, 1), ("grass", "floor"), maps[:, 1:])


def test_auto_takes_back_what_a_rival_has_that_is_hardly_there():
    both, roof = torch.zeros(2, 128, 128)
    both[32:96, 32:96] = 1
    roof[32:64, 32:96] = 1
    for made, expected in ((house(0.2, 0.75), both), (house(0.05), roof)):
        found = mask(made, "house")[0]
        assert ((found * expected).sum() / (found + expected).clamp(max=1).sum()).item() > 0.8
    assert mask(house(0.2, 0.75), "house", "otsu")[0, 80:96].sum() == 0, "the wall's lower half is the floor's otherwise"


def test_rivals_that_prevail_count_in_full():
    """By hand: 'floor' has five ninths of what the grass has, and counts the square of that."""
    maps = torch.tensor([[[[0.5, 0.0]], [[0.0, 0.9]], [[0.5, 0.0]]]])
    given = Saliency(("house",), maps[:, :1], (16, 32), (16, 32), torch.ones(1, 1), ("grass", "floor"), maps[:, 1:])
    doubt = 1 - (0.5 / 0.9)**2
    assert torch.allclose(against_prevailing(given), torch.tensor([[[[0.5 / (1 - doubt * 0.5), 0.0]]]]))
    level = replace(given, contrast_maps=torch.full_like(maps[:, 1:], 0.25))
    assert torch.equal(against_prevailing(level), given.maps), "none prevails"
    nothing = replace(given, contrast_maps=torch.zeros_like(maps[:, 1:]))
    assert torch.equal(against_prevailing(nothing), given.maps)


def test_a_rival_that_has_a_single_token_leaves_nothing_there_and_takes_nothing_elsewhere():
    """Of 40000 tokens: it hardly counts, and where it has everything the house has nothing."""
    maps = torch.zeros(1, 3, 200, 200)
    maps[0, 0], maps[0, 1] = 0.25, 0.75
    maps[0, :, 7, 9] = torch.tensor([0.0, 0.0, 1.0])
    given = Saliency(("house",), maps[:, :1], (200, 200), (200, 200), torch.ones(1, 1), ("grass", "floor"), maps[:, 1:])
    assert torch.equal(against_prevailing(given), given.maps)


def test_which_rivals_prevail_is_asked_of_each_picture_of_a_batch():
    both = [house(0.2, 0.75), house(0.3, 0.4)]
    batch = replace(both[0], maps=torch.cat([one.maps for one in both]), contrast_maps=torch.cat([one.contrast_maps for one in both]),
                    presence=torch.ones(2, 1))
    torch.testing.assert_close(against_prevailing(batch), torch.cat([against_prevailing(one) for one in both]))


def test_auto_with_no_rival_at_all_is_the_whole_picture():
    alone = Saliency(("cat",), torch.ones(1, 1, 4, 4), (64, 64), (64, 64), torch.ones(1, 1), (), torch.ones(1, 0, 4, 4))
    assert mask(alone).all()


def test_specks_are_no_islands_and_no_holes():
    inside = disc(200, 60.0)
    dirty = inside.clone()
    dirty[3:6, 3:6], dirty[100:103, 100:103] = True, False
    assert torch.equal(without_specks(dirty), inside)


def test_a_concept_is_known_by_its_number_too(one):
    assert torch.equal(mask(one, "2"), mask(one, "dog")) and torch.equal(mask(one, "1 + 2"), mask(one, "cat + dog"))
    for wrong in ("0", "3", "-1", "cat2"):
        with pytest.raises(ValueError, match=f"no concept '{wrong}' here. Known: 1 cat, 2 dog. Write one of these names, or its number"):
            mask(one, wrong)
