"""Where exactly a mask ends, on pictures so small that the pixels can be counted."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from test_maps import seen

from concept_saliency.core.masks import Shaping, automatic, feather, limits, mask, refine, rivals, shape, without_specks
from concept_saliency.core.saliency import Saliency


def drawn(*rows: str) -> torch.Tensor:
    """A mask H x W bool of rows of . and #."""
    return torch.tensor([[c == "#" for c in row] for row in rows])


def shaped(inside: torch.Tensor, **shaping) -> torch.Tensor:
    return shape(inside, Shaping(**shaping)).bool()


POINT = drawn(".....", ".....", "..#..", ".....", ".....")
CROSS = drawn(".....", "..#..", ".###.", "..#..", ".....")
BLOCK = drawn(".....", ".###.", ".###.", ".###.", ".....")


def test_grown_by_one_pixel_a_point_is_a_cross_and_shrunk_by_one_a_block_is_its_middle():
    """Distances are from middle to middle: the four neighbours are one away, corners 1.4."""
    assert torch.equal(shaped(POINT, grow=1), CROSS) and torch.equal(shaped(POINT, grow=2).sum(), torch.tensor(13))
    assert torch.equal(shaped(BLOCK, grow=-1), POINT) and not shaped(BLOCK, grow=-2).any()
    assert torch.equal(shaped(BLOCK, grow=0), BLOCK)


def test_what_is_done_to_a_mask_cannot_be_changed_for_all_who_say_nothing():
    """It is a default argument, and one for all."""
    with pytest.raises(FrozenInstanceError):
        Shaping().grow = 5


@pytest.mark.parametrize("name", ["min_area", "feather"])
def test_less_than_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is -1, expected 0 or more pixels"):
        Shaping(**{name: -1})


def test_an_island_of_the_least_area_stays_and_a_smaller_one_goes():
    islands = drawn("##...", ".....", "...##", "...#.", ".....")
    three = drawn(".....", ".....", "...##", "...#.", ".....")
    assert torch.equal(shaped(islands, min_area=2), islands) and torch.equal(shaped(islands, min_area=3), three)
    assert not shaped(islands, min_area=4).any()
    corners = drawn("#.", ".#")
    assert not shaped(corners, min_area=2).any(), "corners do not touch"


def test_holes_are_filled_after_islands_went_before_the_edge_moves_and_all_is_turned_inside_out_at_last():
    ring = drawn("#....", ".....", "..###", "..#.#", "..###")
    assert torch.equal(shaped(ring, min_area=2, fill_holes=True, invert=True), drawn("#####", "#####", "##...", "##...", "##..."))
    assert torch.equal(shaped(drawn("....", ".##.", ".##."), grow=1, invert=True), drawn("#..#", "....", "...."))
    assert torch.equal(shaped(ring), ring), "nothing unasked for"


@pytest.mark.parametrize("width", [1, 3, 6])
def test_a_feathered_edge_is_a_bell_curve_s_integral_a_third_of_the_width_wide(width):
    """A straight edge: x pixels inside of it stands the share of a normal distribution below x; the two sides mirror each other.
    From `width` on it is exactly 0 and 1."""
    edge = torch.zeros(40, 40)
    edge[:, 20:] = 1
    row = feather(edge, width)[1]
    torch.testing.assert_close(feather(edge.T.contiguous(), width)[:, 1], row)  # downwards as across
    expected = torch.tensor([0.5 * (1 + math.erf((x + 0.5 - 20) / (width / 3) / math.sqrt(2))) for x in range(40)])
    torch.testing.assert_close(row, expected, atol=0.03 if width > 1 else 0.09, rtol=0)
    torch.testing.assert_close(row, 1 - row.flip(0))
    assert (row[:20 - width] == 0).all() and (row[20 + width:] == 1).all() and 0 < row[19] < 0.5 < row[20] < 1


def test_less_than_one_step_of_8_bits_is_cut_off_on_both_sides_of_a_feather():
    steps = feather(shape(POINT.repeat_interleave(9, 0).repeat_interleave(9, 1), Shaping()), 9).unique()
    assert steps[0] == 0 and steps[1] >= 1 / 255
    steps = (1 - feather(shape(~POINT.repeat_interleave(9, 0).repeat_interleave(9, 1), Shaping()), 9)).unique()
    assert steps[0] == 0 and steps[1] >= 1 / 255 - 1e-6


def test_a_feather_may_be_wider_than_the_picture():
    """As if the picture went on as it ends: 3 x 2 pixels, whose lower half is inside, are even across."""
    half = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    soft = feather(half, 4)
    assert soft.shape == (3, 2) and torch.allclose(soft[:, 0], soft[:, 1]) and soft[0, 0] < soft[1, 0] < 0.5 < soft[2, 0]
    assert torch.equal(feather(torch.ones(2, 3), 5), torch.ones(2, 3)) and shape(POINT, Shaping(feather=1)).unique().numel() > 2


def rivalling(cat: torch.Tensor, dog: float = 0.5) -> Saliency:
    """A cat's map against a dog that is equally strong everywhere, one pixel a token."""
    maps = torch.stack((cat, torch.full_like(cat, dog)))[None]
    return Saliency(("cat", "dog"), maps, tuple(cat.shape), tuple(cat.shape), maps.amax((2, 3)), (), torch.zeros(1, 0, *cat.shape))


def test_a_concept_that_wins_less_than_a_hundredth_of_the_tokens_is_not_there():
    for columns, won, there in ((10, 1, True), (20, 1, False), (20, 2, True)):
        cat = torch.zeros(10, columns)
        cat[3, :won] = 0.9
        assert mask(rivalling(cat), "cat")[0].bool().any() == there
        if there:
            assert torch.equal(mask(rivalling(cat), "cat")[0], (cat > 0).float())


def test_a_union_wins_where_either_of_its_concepts_does():
    maps = torch.tensor([[[[0.6, 0.1, 0.2, 0.3]], [[0.1, 0.6, 0.2, 0.3]], [[0.3, 0.3, 0.6, 0.4]]]])
    assert mask(seen(maps), "a + b", "argmax").tolist() == [[[1, 1, 0, 0]]]
    first_two = Saliency(("a", "b"), maps[:, :2], (1, 4), (1, 4), torch.ones(1, 2), ("c",), maps[:, 2:])
    assert mask(first_two, "a + b", "argmax").tolist() == [[[1, 1, 0, 0]]]


def test_a_tie_is_not_won():
    even = rivalling(torch.full((10, 10), 0.5))
    assert not mask(even, "cat", "argmax").any() and not mask(even, "cat").any()
    half = torch.full((10, 10), 0.5)
    half[:5] = 0.6
    assert torch.equal(mask(rivalling(half), "cat", "argmax")[0], (half > 0.5).float())


def test_a_tie_makes_nobody_there_and_brings_in_no_island():
    cat = torch.full((10, 20), 0.5)
    cat[3, 3] = 0.9
    assert not mask(rivalling(cat), "cat").any(), "one token of 200 is won, and a tie in all others is not"
    cat = torch.zeros(10, 10)
    cat[0, :3], cat[8, 4:8] = 0.9, 0.5
    assert torch.equal(mask(rivalling(cat), "cat")[0], (cat > 0.6).float())


def test_where_a_concept_wins_below_its_own_threshold_there_is_no_island():
    """A faint patch that beats a rival fainter still does not bring in the ground."""
    cat, dog = torch.full((10, 10), 0.05), torch.full((10, 10), 0.5)
    cat[:3], dog[:3] = 0.9, 0.1
    cat[8:], dog[8:] = 0.1, 0.05
    one = rivalling(cat)
    one.maps[0, 1] = dog
    assert torch.equal(mask(one, "cat")[0], (cat > 0.5).float())


def test_each_picture_of_a_batch_has_its_own_islands():
    first, second = torch.zeros(10, 10), torch.zeros(10, 10)
    first[:3], second[:, 6:] = 0.9, 0.4
    one, two = rivalling(first), rivalling(second, dog=0.1)
    both = Saliency(one.concepts, torch.cat((one.maps, two.maps)), one.image_size, one.extent, torch.cat((one.presence, two.presence)), (),
                    torch.zeros(2, 0, 10, 10))
    assert torch.equal(mask(both, "cat"), torch.stack((first > 0, second > 0)).float())
    assert rivals(both, [0]).shape == (2, 1, 10, 10) and not rivals(both, [0, 1]).any()
    assert torch.equal(automatic(both, [0], both.maps[:, :1]), torch.stack((first > 0, second > 0)))


def test_what_is_equally_strong_everywhere_is_all_of_the_picture_or_nothing():
    assert mask(rivalling(torch.full((10, 10), 0.6)), "cat").all() and not mask(rivalling(torch.full((10, 10), 0.4)), "cat").any()


def test_absolute_is_half_unless_said_and_a_percentile_is_of_each_map():
    maps = torch.tensor([[[[0.5, 0.51], [0.2, 0.9]], [[0.05, 0.01], [0.02, 0.03]]]])
    assert mask(seen(maps), "a", "absolute").tolist() == [[[0, 1], [0, 1]]]
    assert mask(seen(maps), method="absolute").tolist() == [[[0, 1], [0, 1]]], "the first concept unless said"
    assert mask(seen(maps), "a", "percentile").tolist() == [[[0, 1], [0, 1]]]
    assert mask(seen(maps), "b", "percentile", 0.7).tolist() == [[[1, 0], [0, 0]]]
    assert limits(maps, "mean", 0.0).flatten().tolist() == pytest.approx([0.5275, 0.0275])


def test_a_soft_mask_ends_at_one_step_of_8_bits():
    """1/255 is 0.00392."""
    found = mask(seen(torch.tensor([[[[0.00391, 1 / 255, 0.00393, 0.5]]]])), "a", "soft")[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 1 / 255, 0.00393, 0.5]))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_more_than_four_tokens_away_has_no_say_in_a_refined_edge():
    """Twice the two tokens that a refined edge may move: windows around it see so far, and windows around these as far again."""
    token, maps, image = 5.0, noise(1, 1, 60, 180), noise(1, 60, 180, 3)
    before = refine(maps, image, token)
    image[:, :, 90:] = 1 - image[:, :, 90:]
    change = (refine(maps, image, token) - before)[0, 0].abs().amax(dim=0)
    reach = 90 - int((change > 1e-6).nonzero()[0])
    assert reach == 4 * token


def test_a_refined_edge_is_the_same_from_a_file_and_whatever_the_fourth_channel_holds():
    maps, image = noise(1, 2, 41, 45), noise(1, 41, 45, 3)
    found = refine(maps, image, 4.0)
    stored = torch.from_numpy((image * 255).round().numpy().astype("uint8")) / 255
    assert torch.equal(refine(maps, stored, 4.0), found) and not torch.equal(found, maps)
    assert torch.equal(refine(maps, torch.cat((image, noise(1, 41, 45, 1)), dim=-1), 4.0), found)
    assert found.shape == maps.shape and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("token, size, more", [(12.0, (50, 52), (1, 2)), (20.0, (83, 82), (2, 3))])
def test_a_picture_of_odd_sides_is_refined_as_if_it_went_on_as_it_ends(token, size, more):
    """Refined is every pixel of eight steps to two tokens: of tokens of 12 pixels every third, of 20 every fifth."""
    maps, image = noise(1, 1, *size), noise(1, *size, 3)
    margin = (0, more[1], 0, more[0])
    longer = torch.nn.functional.pad(maps, margin, mode="replicate")
    larger = torch.nn.functional.pad(image.movedim(-1, 1), margin, mode="replicate").movedim(1, -1)
    torch.testing.assert_close(refine(maps, image, token), refine(longer, larger, token)[..., :size[0], :size[1]])


def test_refinement_needs_more_pixels_than_its_window():
    """Tokens of one pixel, a window of two to either side: on four pixels there is nothing to follow, on five there is."""
    for side, refined in ((4, False), (5, True)):
        maps = noise(1, 1, side, side)
        assert torch.equal(refine(maps, noise(1, side, side, 3, seed=1), 1.0), maps) != refined


def test_a_token_of_less_than_a_pixel_is_refined_within_one():
    """As in a picture that was enlarged for the model."""
    maps, image = noise(1, 1, 3, 3), noise(1, 3, 3, 3, seed=1)
    for token in (0.5, 0.1):
        assert not torch.equal(refine(maps, image, token), maps)
        assert torch.equal(refine(maps[..., :2, :2], image[:, :2, :2], token), maps[..., :2, :2])


def test_a_refined_edge_follows_every_colour():
    maps, image = noise(1, 1, 30, 30), torch.full((1, 30, 30, 3), 0.5)
    flat = refine(maps, image, 2.0)
    for colour in range(3):
        other = image.clone()
        other[:, :, 15:, colour] = 0.9
        assert not torch.allclose(refine(maps, other, 2.0), flat)


def test_overshooting_is_cut_off_at_0_and_1():
    """A guided filter's straight lines go beyond where the picture has a single bright spot beside an edge of the map."""
    maps, image = torch.zeros(1, 1, 40, 40), torch.full((1, 40, 40, 3), 0.3)
    maps[..., 20:], image[:, :, 20:] = 1.0, 0.6
    image[:, 10, 30], image[:, 10, 5] = 1.0, 0.0
    found = refine(maps, image, 4.0)
    assert found[0, 0, 10, 30] == 1 and found[0, 0, 10, 5] == 0 and found.min() == 0 and found.max() == 1


def test_how_much_of_a_faint_edge_is_followed_by_hand():
    """He and Sun's filter where the map and a grey picture have one edge in common, the picture's of 8 levels d = 8/255. In a window of
    five columns, f of which are bright, the picture's variance is v = d^2 f (1 - f) in each of three colours, and the map follows it
    by 3 v / (3 v + 0.001). A pixel has the mean of the five windows it is in."""
    maps, image = torch.zeros(1, 1, 16, 16), torch.full((1, 16, 16, 3), 0.4)
    maps[..., 8:], image[:, :, 8:] = 1.0, 0.4 + 8 / 255
    expected = 0.0
    for bright in (1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0):  # windows around the two columns before the first bright one, it, and two after
        variance = (8 / 255)**2 * bright * (1 - bright)
        expected += (bright + 3 * variance / (3 * variance + 0.001) * (1 - bright)) / 5
    torch.testing.assert_close(refine(maps, image, 1.0)[0, 0, 3:-3, 8], torch.full((10,), expected), atol=1e-4, rtol=0)


def test_one_picture_does_for_a_batch_of_maps_and_another_number_does_not():
    maps, image = noise(2, 1, 24, 20), noise(1, 24, 20, 3)
    both = refine(maps, image, 2.0)
    torch.testing.assert_close(both[1:], refine(maps[1:], image, 2.0))
    torch.testing.assert_close(refine(maps, image.repeat(2, 1, 1, 1), 2.0), both)
    with pytest.raises(ValueError, match=r"'image' is 3 picture\(s\) of 20 x 24 pixels, but the saliency is of 2 of 20 x 24\. Give"):
        refine(maps, image.repeat(3, 1, 1, 1), 2.0)
    for wrong in (image[:, :23], image[:, :, :19]):
        with pytest.raises(ValueError, match="Give the picture that the saliency was made from"):
            refine(maps, wrong, 2.0)


def test_a_speck_is_less_than_a_two_thousandth_of_the_picture():
    inside = torch.zeros(100, 100, dtype=torch.bool)
    inside[10, 10:15] = True
    assert torch.equal(without_specks(inside), inside), "five of ten thousand pixels"
    inside[10, 14] = False
    assert not without_specks(inside).any()
    assert without_specks(~inside).all(), "nor is a hole of so few"


def test_specks_go_with_refinement_alone():
    """A picture that shows them as clearly as the map does: four bright pixels of ten thousand."""
    maps = torch.zeros(1, 1, 100, 100)
    maps[..., :30], maps[0, 0, 50:52, 80:82] = 1.0, 1.0
    for image, kept in ((None, True), (maps[0, 0][None, ..., None].expand(-1, -1, -1, 3), False)):
        found = mask(seen(maps), "a", "absolute", 0.1, image=image)[0]
        assert found[:, :30].all() and found[50:52, 80:82].any() == kept
