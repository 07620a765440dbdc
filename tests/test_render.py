"""What a person sees."""

import pytest
import torch
from PIL import Image

from concept_saliency.core import render
from concept_saliency.core.saliency import Saliency


def test_colours_mean_the_same_on_every_heatmap():
    """Plasma, the paper's: dark blue for nothing, yellow for certain; a map of 0.3 everywhere is not stretched to yellow."""
    first, last = render.heatmaps(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(first, torch.tensor([0.0504, 0.0298, 0.528]), atol=0.01, rtol=0)
    torch.testing.assert_close(last, torch.tensor([0.940, 0.975, 0.131]), atol=0.01, rtol=0)
    faint = render.heatmaps(torch.full((2, 2), 0.3))
    assert (faint == faint[0, 0]).all() and not torch.allclose(faint[0, 0], last)
    assert torch.equal(render.heatmaps(torch.tensor([-1.0, 2.0])), render.heatmaps(torch.tensor([0.0, 1.0])))
    assert not torch.equal(render.heatmaps(torch.tensor(0.5), "bone"), render.heatmaps(torch.tensor(0.5)))


def test_faint_heat_can_be_seen_in_an_overlay():
    """At a quarter of the scale heat covers half of what it covers at its end: its root, for faint heat would vanish otherwise."""
    picture = torch.full((1, 1, 2, 3), 0.6)
    heat = torch.tensor([[[0.25, 1.0]]])
    shown = render.overlay(picture, heat, opacity=1.0)[0, 0]
    colours = render.heatmaps(heat)[0, 0]
    torch.testing.assert_close(shown[0], 0.5 * picture[0, 0, 0] + 0.5 * colours[0])
    torch.testing.assert_close(shown[1], colours[1])
    torch.testing.assert_close(render.overlay(picture, heat)[0, 0, 1], 0.2 * picture[0, 0, 1] + 0.8 * colours[1])


def test_the_picture_under_an_overlay_is_grey_as_bright_as_it_looks():
    picture = torch.tensor([[[[1.0, 0.0, 0.0, 0.3], [0.0, 1.0, 0.0, 0.3], [0.0, 0.0, 1.0, 0.3]]]])  # with transparency
    shown = render.overlay(picture, torch.zeros(1, 1, 3))[0, 0]
    torch.testing.assert_close(shown, torch.tensor([0.299, 0.587, 0.114])[:, None].expand(3, 3))


@pytest.fixture
def two() -> Saliency:
    maps = torch.stack((torch.full((2, 2), 0.9), torch.full((2, 2), 0.1)))[None].repeat(2, 1, 1, 1)
    return Saliency(("cat", "dog"), maps, (160, 160), (160, 160), torch.tensor([[0.91, 0.12], [0.5, 0.25]]), (), torch.zeros(2, 0, 2, 2))


def test_tiles_come_picture_by_picture_each_with_its_concept(two):
    shown = render.tiles(two, two.pixels(two.maps))
    assert shown.shape[0] == 4 and shown.shape[2:] == (160, 3)
    bar = shown.shape[1] - 160
    for i, heat in enumerate((0.9, 0.1, 0.9, 0.1)):
        torch.testing.assert_close(shown[i, bar:], render.heatmaps(torch.full((160, 160), heat)), atol=0.01, rtol=0)
    assert [render.caption(two, 0, 0), render.caption(two, 1, 1)] == ["cat  0.91", "dog  0.25"]
    assert not torch.equal(shown[0, :bar], shown[2, :bar]), "its presence stands above it"
    over = render.tiles(two, two.pixels(two.maps), torch.rand(1, 160, 160, 3))
    assert over.shape == shown.shape and not torch.equal(over, shown), "one picture does for all"


def test_a_mask_shows_in_its_picture():
    """In colour inside, a quarter as bright and grey outside, a line of one pixel in 200 between, outside of the edge."""
    mask = torch.zeros(1, 400, 400)
    mask[:, :, :200] = 1
    picture = torch.tensor([0.8, 0.4, 0.2]).expand(1, 400, 400, 3)
    shown = render.mask_tiles(mask, picture, ["cat"])[0, -400:]
    torch.testing.assert_close(shown[5, 100], picture[0, 0, 0])
    torch.testing.assert_close(shown[5, 300], torch.full((3,), 0.25 * (0.299 * 0.8 + 0.587 * 0.4 + 0.114 * 0.2)))
    line = (shown[5] == torch.tensor([0.15, 1.0, 0.55])).all(dim=1).nonzero().flatten().tolist()
    assert line == [200, 201]
    plain = render.mask_tiles(mask, None, ["cat"])[0, -400:]
    assert plain[5, 100].tolist() == [1, 1, 1] and plain[5, 300].tolist() == [0, 0, 0]


def test_captions_fit_and_can_be_read():
    picture = torch.zeros(144, 144, 3)
    bar = render.label(picture, "cat")[:-144]
    assert bar.shape[0] == round(16 * 1.6) and bar.max() > 0.9, "a ninth of the picture's side, however short the text"
    short, long = (render.label(picture, text)[:-144] for text in ("a cat", "an exceedingly long name of a concept, without room"))
    assert long.shape == short.shape, "a bar of one height, so that the tiles of a row line up"
    dark = torch.tensor([24, 24, 28]) / 255
    assert torch.allclose(long[:, :2], dark) and torch.allclose(long[:, -2:], dark), "shortened, not cut off"
    assert not torch.equal(render.label(picture, "a cat"), render.label(picture, "a dog"))


def test_a_contact_sheet_is_white_between_its_pictures():
    pictures = [torch.full((4, 6, 3), 0.1 * i) for i in range(3)] + [torch.full((2, 6, 3), 0.3)]
    whole = render.sheet(pictures, columns=3, gap=2)
    assert whole.shape == (2 + 4 + 2 + 2 + 2, 2 + 3 * 8, 3)
    assert (whole[2:6, 2:8] == 0).all() and (whole[2:6, 10:16] == pictures[1][0, 0]).all()
    assert (whole[8:10, 2:8] == pictures[3][0, 0]).all()
    assert (whole[:2] == 1).all() and (whole[:, :2] == 1).all() and (whole[:, 8:10] == 1).all() and (whole[8:, 8:] == 1).all()


def test_a_picture_comes_back_as_it_went():
    picture = torch.arange(12).view(2, 2, 3) / 255
    assert torch.equal(render.from_pil(render.to_pil(picture))[0], picture)
    assert render.to_pil(torch.tensor([[0.0, 1.0]])).getpixel((1, 0)) == 255
    assert render.to_pil(torch.full((1, 1), 1.2)).getpixel((0, 0)) == 255
    assert render.from_pil(Image.new("L", (3, 2), 51)).shape == (1, 2, 3, 3)


def test_a_segmentation_has_a_colour_for_every_concept_and_grey_for_none():
    names = tuple("abcdefgh")
    shown = render.segmentation(torch.tensor([[[0, 1, 7, -1]]]), names, legend=False)[0, 0]
    assert torch.equal(shown[0], shown[2]), "seven colours, then from the first again"
    assert not torch.equal(shown[0], shown[1]) and torch.allclose(shown[3], torch.full((3,), 0.16))
    assert torch.equal(render.segmentation(torch.tensor([[[-5, 0]]]), names, legend=False)[0, 0], shown[[3, 0]])
    torch.testing.assert_close(shown[0], torch.tensor([0xe6, 0x9f, 0x00]) / 255)


def test_the_legend_names_every_concept_in_its_colour_below_the_picture():
    labels = torch.zeros(2, 240, 240, dtype=torch.long)
    shown = render.segmentation(labels, ("cat", "dog"))
    assert shown.shape[2:] == (240, 3) and torch.equal(shown[:, :240], render.segmentation(labels, ("cat", "dog"), legend=False))
    strip = (shown[0, 240:] * 255).round()
    for colour in ((0xe6, 0x9f, 0x00), (0x56, 0xb4, 0xe9)):
        assert (strip == torch.tensor(colour)).all(dim=-1).sum() >= 100, "its key"
    many = render.segmentation(labels, tuple(f"concept number {i}" for i in range(9)))
    assert many.shape[1] > shown.shape[1] + 40, "as many lines as it takes"
    endless = render.segmentation(labels, ("a name that is much too long to stand below a picture of this size",))
    dark = torch.tensor([24, 24, 28]) / 255
    assert endless.shape == shown.shape and torch.allclose(endless[0, 240:, -4:], dark), "shortened, not cut off"


@pytest.mark.parametrize("colormap", render.COLORMAPS)
def test_every_colormap_has_256_colours(colormap):
    shown = render.heatmaps(torch.arange(256) / 255, colormap)
    assert shown.shape == (256, 3) and len(shown.unique(dim=0)) > 200
    levels = torch.arange(1, 255)
    assert torch.equal(render.heatmaps((levels + 0.4) / 255, colormap), shown[1:-1]), "rounded to the nearest"
    assert torch.equal(render.heatmaps((levels - 0.4) / 255, colormap), shown[1:-1])
    assert torch.equal(render.heatmaps(torch.tensor([-0.5, 1.5]), colormap), shown[[0, 255]])


def test_what_is_beyond_the_scale_is_its_end_in_an_overlay_too():
    picture = torch.full((1, 1, 2, 3), 0.6)
    beyond, ends = (render.overlay(picture, torch.tensor([[heat]])) for heat in ([-0.1, 1.5], [0.0, 1.0]))
    assert torch.equal(beyond, ends)


def test_the_line_around_a_mask_is_a_two_hundredth_of_the_shorter_side_thick():
    for height, width, thick in ((40, 60, 1), (299, 330, 1), (420, 301, 2)):
        mask = torch.zeros(1, height, width)
        mask[:, height // 2:, width // 2:] = 1
        shown = render.mask_tiles(mask, torch.full((1, height, width, 3), 0.5), ["cat"])[0, -height:]
        line = (shown == torch.tensor([0.15, 1.0, 0.55])).all(dim=-1)
        assert line[-1].sum() == line[:, -1].sum() == thick and line[-1, width // 2 - 1] and line[height // 2 - 1, -1]


def test_a_soft_mask_fades_and_its_edge_is_where_it_is_half():
    mask = torch.tensor([0.0, 0.25, 0.5, 0.6, 1.0]).repeat_interleave(4).expand(1, 20, 20)
    picture = torch.rand(1, 20, 20, 4, generator=torch.Generator().manual_seed(0))
    shown = render.mask_tiles(mask, picture, ["cat"])[0, -20:]
    colour, grey = picture[0, ..., :3], 0.25 * (picture[0, ..., :3] @ torch.tensor([0.299, 0.587, 0.114]))[..., None]
    torch.testing.assert_close(shown[:, 4:8], (0.75 * grey + 0.25 * colour)[:, 4:8])
    torch.testing.assert_close(shown[:, 12:16], (0.4 * grey + 0.6 * colour)[:, 12:16])
    assert (shown[:, 11] == torch.tensor([0.15, 1.0, 0.55])).all() and not (shown[:, 10] == torch.tensor([0.15, 1.0, 0.55])).all()


def test_masks_of_a_batch_show_in_their_own_pictures_or_all_in_one():
    masks, pictures = torch.ones(2, 30, 30), torch.stack((torch.full((30, 30, 3), 0.2), torch.full((30, 30, 3), 0.7)))
    assert [tile[-1, -1, 0].item() for tile in render.mask_tiles(masks, pictures, ["a", "b"])] == pytest.approx([0.2, 0.7])
    assert [tile[-1, -1, 0].item() for tile in render.mask_tiles(masks, pictures[:1], ["a", "b"])] == pytest.approx([0.2, 0.2])


def test_tiles_of_a_batch_lie_over_their_own_pictures(two):
    pictures = torch.stack((torch.zeros(160, 160, 3), torch.ones(160, 160, 3)))
    cold = torch.zeros(2, 2, 160, 160)
    assert [tile[-1, -1].tolist() for tile in render.tiles(two, cold, pictures)] == [[0] * 3, [0] * 3, [1] * 3, [1] * 3]
    rgba = torch.cat((pictures, torch.full((2, 160, 160, 1), 0.5)), dim=-1)
    assert torch.equal(render.tiles(two, cold, rgba), render.tiles(two, cold, pictures))


def test_pictures_of_a_contact_sheet_are_8_pixels_apart():
    whole = render.sheet([torch.zeros(4, 6, 3)] * 3, columns=2)
    assert whole.shape == (8 + 4 + 8 + 4 + 8, 8 + 6 + 8 + 6 + 8, 3)
    assert render.sheet([torch.zeros(4, 6, 3)], columns=1).shape == (20, 22, 3)
    assert (whole[8:12, 22:28] == 0).all() and (whole[20:24, 8:14] == 0).all() and (whole[20:24, 14:] == 1).all()


def test_a_picture_is_rounded_to_the_nearest_of_256_levels():
    stored = render.to_pil(torch.tensor([[0.4, 0.6, 254.4, 254.6]]) / 255)
    assert [stored.getpixel((x, 0)) for x in range(4)] == [0, 1, 254, 255]
    assert render.to_pil(torch.tensor([[-0.5, 2.0]])).getpixel((0, 0)) == 0


def test_of_a_clip_at_most_eight_frames_are_previewed_from_the_first_to_the_last():
    """Two clips of 15 frames, every second; of three frames all. Their captions number them from 1."""
    def clips(frames: int) -> Saliency:
        maps = torch.zeros(2 * frames, 1, 2, 2)
        return Saliency(("cat",), maps, (32, 32), (32, 32), torch.full((2 * frames, 1), 0.5), (), maps[:, :0], frames)

    assert render.previewed(clips(15)) == [*range(0, 15, 2), *range(15, 30, 2)]
    assert render.previewed(clips(3)) == [0, 1, 2, 3, 4, 5] and render.previewed(clips(1)) == [0, 1]
    assert [render.caption(clips(3), picture, 0) for picture in (0, 2, 3)] == [f"cat  0.50  frame {n}" for n in (1, 3, 1)]
    assert render.caption(clips(2), 1, 0) == "cat  0.50  frame 2" and render.caption(clips(1), 1, 0) == "cat  0.50"
