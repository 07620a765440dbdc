"""Where exactly: what SAM3, Impact Pack and other tools are told."""

import pytest
import torch

from concept_saliency.core.masks import refine, token_size
from concept_saliency.core.regions import NOTHING, disjoint_masks, instance_labels, instances, islands, labels, peaks, point_prompts
from concept_saliency.core.saliency import Saliency


def seen(maps, contrast=(), size=None) -> Saliency:
    """Maps C x h x w of "cat", "dog" and so on, and of the rivals `contrast`; one pixel a token if no size is given."""
    maps = torch.tensor(maps)[None]
    rivals = torch.tensor(contrast)[None] if len(contrast) else torch.zeros(1, 0, *maps.shape[2:])
    size = size or tuple(maps.shape[2:])
    names = ("cat", "dog", "bird")[:maps.shape[1]]
    return Saliency(names, maps, size, size, maps.amax((2, 3)), tuple(f"rival {i}" for i in range(rivals.shape[1])), rivals)


def test_a_pixel_belongs_to_the_concept_that_wins_it_and_to_nothing_where_a_rival_does():
    maps = seen([[[0.6, 0.2, 0.3, 0.1]], [[0.3, 0.5, 0.3, 0.2]]], [[[0.1, 0.3, 0.4, 0.7]]])
    assert labels(maps).tolist() == [[[0, 1, -1, -1]]] and NOTHING == -1
    parts = disjoint_masks(labels(maps), 2)
    assert parts.tolist() == [[[[1, 0, 0, 0]], [[0, 1, 0, 0]]]], "what nobody wants is in no mask"


def test_the_border_between_two_concepts_follows_the_picture():
    """Tokens of 16 pixels see the border at 64; in the picture it is at 60."""
    half = torch.zeros(8, 8)
    half[:, :4] = 0.9
    maps = seen(torch.stack((half + 0.05, 0.95 - half)).tolist(), size=(128, 128))
    picture = torch.zeros(1, 128, 128, 3)
    picture[:, :, :60] = 0.8
    plain, refined = labels(maps)[0], labels(maps, picture)[0]
    assert (plain[64] == 0).sum() == 64 and (refined[64] == 0).sum() == 60


def test_a_refined_label_picture_has_no_specks():
    """Dots of the picture that look like the other side, near the border, and one that is large enough to be meant."""
    half = torch.zeros(8, 8)
    half[:, :4] = 0.9
    maps = seen(torch.stack((half * 0.3 + 0.4, 0.6 - half * 0.3)).tolist(), size=(256, 256))
    picture = torch.zeros(1, 256, 256, 3)
    picture[:, :, :128] = 0.8
    picture[:, 20:250:24, 140:143] = 0.8  # 3 pixels each
    picture[:, 100:112, 140:152] = 0.8
    rough = (refine(maps.pixels(maps.maps), picture, token_size(maps)).argmax(dim=1) == 0)[0]
    assert rough[20, 141] and rough[106, 146], "without more ado the dots are specks"
    left = labels(maps, picture)[0] == 0
    assert not left[20:98, 136:].any() and not left[120:, 136:].any(), "specks are gone"
    assert left[100:112, 140:152].all() and left[:, :124].all(), "and what is larger stays"


def test_islands_come_largest_first_with_their_boxes_and_their_own_pixels():
    mask = torch.zeros(20, 30)
    mask[2:4, 5:10] = 1  # 2 high, 5 wide
    mask[10:16, 20:24] = 1
    mask[10, 20] = 0
    mask[19, 0] = 1
    found = islands(mask, min_share=2 / 600)
    assert [box for box, _ in found] == [{"x": 20, "y": 10, "width": 4, "height": 6}, {"x": 5, "y": 2, "width": 5, "height": 2}]
    assert found[0][1].shape == (6, 4) and found[0][1].sum() == 23 and not found[0][1][0, 0]
    assert len(islands(mask, min_share=0)) == 3, "the speck of one pixel, too, if it is wanted"
    assert len(islands(mask, min_share=1 / 600)) == 3, "exactly that share is enough"
    assert islands(torch.zeros(5, 5)) == []


def test_an_island_within_another_s_box_is_no_part_of_it():
    """A ring around a dot: the ring's box covers the dot, the ring does not."""
    mask = torch.ones(7, 7)
    mask[1:6, 1:6] = 0
    mask[3, 3] = 1
    (ring, pixels), (dot, _) = islands(mask)
    assert ring == {"x": 0, "y": 0, "width": 7, "height": 7} and not pixels[3, 3] and pixels.sum() == 24
    assert dot == {"x": 3, "y": 3, "width": 1, "height": 1}


def hills(*places, size=(64, 96)) -> torch.Tensor:
    """A map with smooth hills at (y, x, height)."""
    y, x = torch.arange(size[0])[:, None].float(), torch.arange(size[1])[None].float()
    return sum(height * torch.exp(-((y - py).square() + (x - px).square()) / 40) for py, px, height in places)


def test_peaks_are_the_tops_of_hills_the_highest_first():
    heat = hills((20, 15, 0.6), (40, 70, 0.9), (10, 60, 0.3))
    assert peaks(heat, 5, above=0.05) == [{"x": 70, "y": 40}, {"x": 15, "y": 20}, {"x": 60, "y": 10}]
    assert peaks(heat, 2) == [{"x": 70, "y": 40}, {"x": 15, "y": 20}]
    assert len(peaks(heat, 5, above=0.5)) == 2 and peaks(heat, 5, above=0.95) == []


def test_one_hill_is_one_point_even_where_it_has_two_tops_or_is_flat():
    assert len(peaks(hills((30, 40, 0.9), (30, 43, 0.85)), 5, above=0.5)) == 1
    plain = torch.zeros(32, 32)
    plain[10:15, 8:17] = 0.7
    assert peaks(plain, 5) == [{"x": 12, "y": 12}], "the middle of a plateau"
    corner = torch.zeros(8, 8)
    corner[7, 7] = 1.0
    assert peaks(corner, 1) == [{"x": 7, "y": 7}]


def test_points_lie_on_the_thing_and_beside_it():
    """SAM3 is told where the cat is and where it is not: on its rivals, a concept or a contrast one."""
    cat, dog, sky = hills((20, 20, 0.9)), hills((40, 70, 0.8)), hills((50, 10, 0.7))
    both = torch.stack((cat, dog))
    maps = Saliency(("cat", "dog"), both[None], (64, 96), (64, 96), both.amax((1, 2))[None], ("sky",), sky[None, None])
    there, elsewhere, mask = point_prompts(maps, 0)
    assert there == [{"x": 20, "y": 20}] and elsewhere == [{"x": 70, "y": 40}, {"x": 10, "y": 50}]
    assert mask.dtype == torch.float32 and mask[20, 20] == 1 and mask[40, 70] == 0 and mask[50, 10] == 0
    there, elsewhere, _ = point_prompts(maps, 1, count=1)
    assert (there, elsewhere) == ([{"x": 70, "y": 40}], [{"x": 20, "y": 20}]), "as many as are asked for"


def test_a_concept_alone_has_no_rivals_and_points_all_the_same():
    alone = seen(hills((20, 20, 0.9))[None].tolist())
    there, elsewhere, mask = point_prompts(alone, 0)
    assert (there, elsewhere) == ([{"x": 20, "y": 20}], []) and mask[20, 20] == 1


def test_the_second_picture_of_a_batch_has_points_of_its_own():
    maps = torch.stack((hills((20, 20, 0.9)), hills((40, 70, 0.9))))[:, None]
    two = Saliency(("cat",), maps, (64, 96), (64, 96), maps.amax((2, 3)), (), torch.zeros(2, 0, 64, 96))
    assert point_prompts(two, 0, picture=1)[0] == [{"x": 70, "y": 40}]


@pytest.mark.parametrize("height", [0.04, 0.06])
def test_faint_heat_is_no_point(height):
    found, _, _ = point_prompts(seen(hills((20, 20, height))[None].tolist()), 0)
    assert bool(found) == (height > 0.05)


def test_what_is_half_or_less_is_no_island_and_neither_is_less_than_a_thousandth_of_the_picture():
    mask = torch.zeros(100, 100)
    mask[0, :9], mask[50, :10], mask[80:] = 1, 1, 0.5
    assert islands(mask)[0][0] == {"x": 0, "y": 50, "width": 10, "height": 1} and len(islands(mask)) == 1


def test_a_tie_is_not_won():
    even = seen([[[0.4, 0.6]], [[0.4, 0.2]]])
    assert point_prompts(even, 0)[2].tolist() == [[0, 1]] and point_prompts(even, 1)[2].tolist() == [[0, 0]]


def test_three_points_of_the_first_picture_unless_said():
    maps = torch.stack((hills((10, 10, 0.9), (10, 80, 0.8), (50, 10, 0.7), (50, 80, 0.6)), hills((30, 40, 0.9))))[:, None]
    two = Saliency(("cat",), maps, (64, 96), (64, 96), maps.amax((2, 3)), (), torch.zeros(2, 0, 64, 96))
    assert point_prompts(two, 0)[0] == [{"x": 10, "y": 10}, {"x": 80, "y": 10}, {"x": 10, "y": 50}]


def tops(*places, size) -> torch.Tensor:
    """A map with single pixels at (y, x, height)."""
    heat = torch.zeros(size)
    for y, x, height in places:
        heat[y, x] = height
    return heat


def test_points_are_an_eighth_of_the_shorter_side_apart():
    """Of 72 pixels 9: within a square of 9 around a point, 4 to each side, no lower one is another."""
    assert len(peaks(tops((30, 40, 0.9), (26, 36, 0.8), size=(72, 100)), 5)) == 1
    assert len(peaks(tops((30, 40, 0.9), (30, 45, 0.8), size=(72, 100)), 5)) == 2


def test_on_the_smallest_maps_neighbours_are_one_point():
    assert peaks(tops((3, 3, 0.9), (2, 2, 0.8), size=(8, 8)), 5) == [{"x": 3, "y": 3}]
    assert len(peaks(tops((3, 3, 0.9), (3, 5, 0.8), size=(8, 8)), 5)) == 2


def discs(*places, size=(90, 160)) -> torch.Tensor:
    """A mask with discs at (y, x, radius)."""
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return torch.stack([(y - py) ** 2 + (x - px) ** 2 <= radius ** 2 for py, px, radius in places]).any(dim=0).float()


def whole(things, size) -> torch.Tensor:
    """The numbers 1, 2, ... of instances in a picture, 0 elsewhere."""
    numbers = torch.zeros(size, dtype=torch.int64)
    for number, (box, own) in enumerate(things, 1):
        place = numbers[box["y"]:box["y"] + box["height"], box["x"]:box["x"] + box["width"]]
        assert not place[own].any() and own.shape == place.shape, "no pixel is two things'"
        place[own] = number
    return numbers


def test_two_discs_that_touch_are_two_instances_cut_in_the_middle():
    mask = discs((45, 45, 36), (45, 109, 30))
    assert len(islands(mask)) == 1
    things = instances(mask)
    numbers = whole(things, mask.shape)
    assert len(things) == 2 and torch.equal(numbers > 0, mask > 0), "every pixel belongs to one of them"
    assert (numbers[45, 9:77] == 1).all() and (numbers[45, 84:139] == 2).all(), "the larger first, the cut at the neck (x = 80)"


def test_two_equal_discs_are_cut_halfway_between_them_whichever_way_they_lie():
    """They touch between two columns of pixels; mirrored each is the other."""
    mask = discs((45, 45, 30), (45, 104, 30), size=(91, 150))
    assert len(islands(mask)) == 1
    across, down = whole(instances(mask), mask.shape), whole(instances(mask.T), mask.T.shape)
    for numbers, away in ((across, 1), (down, 0)):
        first, second = numbers.chunk(2, dim=away)
        assert {*first.unique().tolist(), *second.unique().tolist()} == {0, 1, 2} and torch.equal(first.flip(away) > 0, second > 0)
        assert len(first.unique()) == len(second.unique()) == 2


@pytest.mark.parametrize("radius, parts", [(25**0.5, True), (24**0.5, False)])
def test_what_hangs_on_a_thread_is_apart_where_it_is_a_23rd_as_wide_as_the_island_s_widest(radius, parts):
    """A block of 231 pixels, whose middle is 116 away from the ground, and a small disc, whose middle is 5.1 or 5 away; 116 / 23 = 5.04."""
    mask = discs((115, 239, radius), size=(231, 246))
    mask[:, :231], mask[115, 231:236] = 1, 1
    [(box, own)] = instances(mask)
    assert (box["width"] < 240) == parts and own[:, :231].all(), "apart it is a crumb, and none of the block"


@pytest.mark.parametrize("width, parts", [(256, 2), (257, 1)])
def test_up_to_256_pixels_everything_is_seen_and_beyond_every_second_pixel(width, parts):
    """Two blocks that are joined by teeth a pixel thin; of every second row there are teeth only."""
    mask = torch.ones(61, width)
    mask[1::2, 126:130] = 0
    assert len(instances(mask)) == parts


def test_what_is_joined_widely_is_one_instance():
    """Where two discs meet, they are 0.87 of the smaller one's width; a bar is nowhere narrower than half of itself."""
    assert len(instances(discs((45, 50, 20), (45, 70, 20)))) == 1
    bar = torch.zeros(90, 160)
    bar[40:50, 10:150] = 1
    [(box, own)] = instances(bar)
    assert box == {"x": 10, "y": 40, "width": 140, "height": 10} and own.all()


def test_three_in_a_row_are_three_and_apart_they_are_what_the_islands_are():
    assert len(instances(discs((45, 30, 20), (45, 69, 20), (45, 108, 20)))) == 3
    apart = discs((45, 30, 20), (45, 90, 18))
    for (box, own), (same, island) in zip(instances(apart), islands(apart), strict=True):
        assert box == same and torch.equal(own, island)


def test_crumbs_beside_a_thing_are_no_instances_and_nothing_has_none():
    beside = discs((45, 40, 20), (45, 100, 9))  # a fifth of the larger one
    assert len(islands(beside)) == 2 and len(instances(beside)) == 1
    assert len(instances(discs((45, 40, 20), (45, 100, 11)))) == 2
    assert instances(torch.zeros(9, 9)) == []
    squares = torch.zeros(40, 60)
    squares[2:22, 2:22], squares[2:12, 30:40] = 1, 1
    assert len(instances(squares)) == 2, "a quarter of the largest is enough"


def test_a_thing_is_a_thousandth_of_the_picture_unless_said_and_so_is_each_of_its_parts():
    speck = torch.zeros(100, 100)
    speck[50, :9] = 1
    assert instances(speck) == [] and len(instances(speck, min_share=0.0009)) == 1
    touching = discs((45, 30, 20), (45, 69, 20))  # 9% of the picture each
    assert len(instances(touching, min_share=0.08)) == 2 and instances(touching, min_share=0.12) == []


def test_a_large_mask_is_parted_on_a_coarser_grid_and_keeps_its_own_pixels():
    large = discs((300, 330, 200), (300, 690, 170), size=(601, 1001))
    things = instances(large)
    assert len(things) == 2 and torch.equal(whole(things, large.shape) > 0, large > 0)


def test_labels_of_single_things_are_numbered_by_size_and_named():
    two, one = discs((45, 40, 30), (45, 104, 36)) > 0, discs((45, 40, 30)) > 0
    label = torch.full((2, 90, 160), NOTHING)
    label[0][two], label[1][one] = 0, 0
    label[1, :20, 100:] = 1
    out, names = instance_labels(label, ("cat", "sky", "dog"))
    assert names == ("cat 1", "cat 2", "sky", "dog"), "as many cats as the picture with most of them has"
    assert out[0, 45, 110] == 0 and out[0, 45, 30] == 1 and (out[0] == 2).sum() == 0
    assert torch.equal(out[1] == 0, one) and (out[1] == 2).sum() == 20 * 60 and (out == 3).sum() == 0
    assert torch.equal(out == NOTHING, label == NOTHING)
