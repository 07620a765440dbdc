"""Where the letters of captions and legends stand, and what is done with those that do not fit."""

import math

import pytest
import torch
from PIL import ImageFont

from concept_saliency.core import render

DARK = torch.tensor([24, 24, 28]) / 255


def ink(picture: torch.Tensor) -> tuple[int, int, int, int]:
    """The first and the last row, the first and the last column that are not the bar's own dark."""
    seen = ((picture - DARK).abs() > 0.02).any(dim=-1)
    rows, columns = seen.any(dim=1).nonzero().flatten().tolist(), seen.any(dim=0).nonzero().flatten().tolist()
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("height, width, largest", [(144, 144, 16), (288, 180, 20), (180, 288, 20), (60, 90, 12)])
def test_a_caption_stands_in_the_middle_of_a_bar_as_high_as_its_type_needs(height, width, largest):
    """Type of a ninth of the shorter side, at least 12, in a bar 1.6 times as high."""
    whole = render.label(torch.zeros(height, width, 3), "oxo")
    assert whole.shape == (round(1.6 * largest) + height, width, 3) and not whole[-height:].any()
    top, bottom, left, right = ink(whole[:-height])
    assert right - left + 1 == pytest.approx(ImageFont.load_default(largest).getlength("oxo"), abs=3)
    assert left + right == pytest.approx(width - 1, abs=2.5)
    assert -1 <= top + bottom - (round(1.6 * largest) - 1) <= 6, "letters without a tail stand a little low"
    if largest > 12:  # of thinner letters no pixel is covered whole
        assert (whole.amax(dim=(0, 1)) * 255).round().tolist() == [240, 240, 240], "light grey"


def bar(text: str, side: int = 288) -> torch.Tensor:
    return render.label(torch.zeros(side, side, 3), text)[:-side]


def most(size: int, room: float) -> int:
    """How many letters n of this size fit."""
    return next(k for k in range(1, 200) if ImageFont.load_default(size).getlength("n" * (k + 1)) > room)


@pytest.mark.parametrize("size", [31, 29, 28, 27, 25, 23, 21, 18])
def test_a_caption_too_long_is_set_smaller_no_more_than_it_must_be(size):
    """Between a ninth of the side, 32, and a sixteenth, 18; half a letter's height stays free on both sides."""
    text = "n" * most(size, 288 - size)
    fitting = next(s for s in range(32, 0, -1) if ImageFont.load_default(s).getlength(text) <= 288 - s)
    _, _, left, right = ink(bar(text))
    assert right - left + 1 == pytest.approx(ImageFont.load_default(fitting).getlength(text), abs=5)
    assert left >= fitting / 2 - 2 and 287 - right >= fitting / 2 - 2


def test_a_caption_that_just_fits_is_not_set_smaller():
    """A type of 32 on a picture as wide as fifteen letters and half a letter's height on both sides; and on one a pixel narrower."""
    length = math.ceil(ImageFont.load_default(32).getlength("n" * 15))
    for width, size in ((length + 32, 32), (length + 31, 31)):
        _, _, left, right = ink(render.label(torch.zeros(288, width, 3), "n" * 15)[:-288])
        assert right - left + 1 == pytest.approx(ImageFont.load_default(size).getlength("n" * 15), abs=4)


def test_a_caption_too_long_for_the_smallest_type_ends_in_dots_where_it_must():
    room, font = 288 - 18, ImageFont.load_default(18)
    whole = "n" * most(18, room)
    assert not torch.equal(bar(whole), bar(whole[:-1] + "…")), "what fits is not shortened"
    kept = next(k for k in range(100, 0, -1) if font.getlength("n" * k + "…") <= room)
    assert torch.equal(bar(whole + "n"), bar("n" * kept + "…")) and all(torch.equal(bar("n" * k), bar("n" * kept + "…")) for k in (99, 100))


def test_on_the_narrowest_picture_dots_are_left_of_a_caption():
    shown = render.label(torch.zeros(40, 2, 3), "cat")
    assert shown.shape == (40 + 19, 2, 3) and torch.equal(shown, render.label(torch.zeros(40, 2, 3), "…"))


def keys_of(strip: torch.Tensor, colour: str) -> tuple[int, int, int, int]:
    """Where a colour of the palette stands in a legend: first and last row, first and last column."""
    seen = ((strip * 255).round() == torch.tensor([int(colour[i:i + 2], 16) for i in (0, 2, 4)])).all(dim=-1)
    rows, columns = seen.any(dim=1).nonzero().flatten().tolist(), seen.any(dim=0).nonzero().flatten().tolist()
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("height, width, size", [(240, 240, 12), (480, 640, 20)])
def test_where_everything_stands_in_a_legend(height, width, size):
    """Type of a 24th of the shorter side, at least 12; a gap of half of it before the first key, a key as large as the type, a gap,
    the name, two gaps, and the next key."""
    shown = render.segmentation(torch.zeros(1, height, width, dtype=torch.long), ("cat", "dog"))[0]
    strip, gap = shown[height:], size // 2
    assert len(strip) == round(1.6 * size + gap)
    top, bottom, left, right = keys_of(strip, "e69f00")
    assert (left, right) == (gap, gap + size) and top + bottom == pytest.approx(len(strip) - 1, abs=2) and bottom - top == size
    second = gap + size + gap + ImageFont.load_default(size).getlength("cat") + 2 * gap
    assert keys_of(strip, "56b4e9")[2] == pytest.approx(second, abs=1)
    name = strip[:, right + 1:int(second) - 2]
    _, _, start, end = ink(name)
    assert start == pytest.approx(gap, abs=2) and end == pytest.approx(gap + ImageFont.load_default(size).getlength("cat"), abs=3)


def test_a_legend_goes_on_in_the_next_line_where_a_name_would_reach_beyond_the_picture():
    font, gap = ImageFont.load_default(12), 6
    first, second = ("a" * 10, "b" * 10)
    needed = gap + sum(12 + gap + font.getlength(name) + 2 * gap for name in (first, second))
    for width, lines in ((math.ceil(needed), 1), (math.ceil(needed) - 1, 2)):
        strip = render.segmentation(torch.zeros(1, 240, width, dtype=torch.long), (first, second))[0, 240:]
        assert len(strip) == round(lines * 12 * 1.6 + gap)
        one, two = keys_of(strip, "e69f00"), keys_of(strip, "56b4e9")
        assert one[0] == pytest.approx(gap / 2 + 0.5 * 12 * 1.6 - 6, abs=1)
        assert (two[0] - one[0], two[2] == gap) == ((0, False) if lines == 1 else (pytest.approx(12 * 1.6, abs=1), True))


def test_a_name_too_long_for_a_line_ends_in_dots_where_it_must():
    """A key, gaps and a margin take three letters' heights."""
    def legend(name: str, width: int = 240) -> torch.Tensor:
        return render.segmentation(torch.zeros(1, 240, width, dtype=torch.long), (name,))[0, 240:]

    font, room = ImageFont.load_default(12), 240 - 3 * 12
    whole = "n" * most(12, room)
    assert not torch.equal(legend(whole), legend(whole[:-1] + "…"))
    assert (legend(whole).amax(dim=(0, 1)) * 255).round().tolist() == [240, 240, 240], "light grey, lighter than the first key"
    kept = next(k for k in range(100, 0, -1) if font.getlength("n" * k + "…") <= room)
    assert torch.equal(legend(whole + "n"), legend("n" * kept + "…")) and torch.equal(legend("n" * 79), legend("n" * 80))
    assert torch.equal(legend("wide", 20), legend("…", 20)) and torch.equal(legend("wide", 40), legend("…", 40))
    just = math.ceil(font.getlength("wide")) + 3 * 12
    assert not torch.equal(legend("wide", just), legend("wi…", just)) and torch.equal(legend("wide", just - 1), legend("wi…", just - 1))
