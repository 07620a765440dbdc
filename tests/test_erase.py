"""Erasing: tokens in a mask see their surroundings alone; on the tiny Flux that removes a thing, where painting anew does not."""

import pytest
import torch
from click.testing import CliRunner
from torch.nn.functional import scaled_dot_product_attention

from concept_saliency.cli import evaluate_erase as erase
from concept_saliency.cli.evaluate_options import TUNING
from concept_saliency.cli.map_options import case
from concept_saliency.core.erase import Hole, look_outside
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.recogniser import load_recogniser

TEXT = 3


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


@pytest.mark.parametrize(("size", "patch", "expected"), [
    ((4, 6), 2, [4, 5]), ((4, 6), 1, [14, 15, 20, 22]), ((5, 7), 2, [5, 6]), ((4, 9), 3, [0, 1, 3, 4])])
def test_a_token_is_inside_where_any_of_it_is_more_than_half_in_the_mask(size, patch, expected):
    mask = torch.zeros(size)
    mask[2, 2:4], mask[3, 2], mask[0, 0] = 0.6, 1.0, 0.5
    mask[3, 4] = 0.51
    hole = Hole.of(mask, patch)
    assert hole.inside.tolist() == expected
    assert sorted(hole.inside.tolist() + hole.outside.tolist()) == list(range(-(-size[0] // patch) * -(-size[1] // patch)))


def test_a_mask_of_everything_is_refused_and_an_empty_one_is_not():
    with pytest.raises(ValueError, match="covers the whole picture"):
        Hole.of(torch.ones(4, 4), 2)
    assert not len(Hole.of(torch.zeros(4, 4), 2).inside)


def test_pictures_with_one_mask_share_it():
    masks = torch.zeros(3, 4, 4)
    assert len(Hole.all_of(masks, 2)) == 1
    masks[2, 0, 0] = 1
    assert [hole.inside.tolist() for hole in Hole.all_of(masks, 2)] == [[], [], [0]]


def attention(batch=2, heads=4, tokens=9, width=8, kv_heads=4, more=0):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, heads, TEXT + tokens + more, width, generator=generator)
    k, v = torch.randn(2, batch, kv_heads, TEXT + tokens + more, width, generator=generator)
    return q, k, v


def dense(q, k, v, holes, first, mask=None, scale=None):
    """The same in one attention with a mask over all queries and keys."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    bias = torch.zeros(len(q), 1, q.shape[2], k.shape[2])
    for row in range(len(q)):
        for query in holes[row % len(holes)].inside:
            bias[row, 0, first + query, first + holes[row % len(holes)].inside] = -torch.inf
    return scaled_dot_product_attention(q, k, v, bias if mask is None else bias + mask, scale=scale)


HOLES = [Hole.of(torch.tensor([[0.0, 1, 0], [0, 1, 1], [0, 0, 0]]), 1), Hole.of(torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]]), 1)]


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("holes", [HOLES[:1], HOLES, [HOLES[0], Hole.of(torch.zeros(3, 3), 1)]])
@pytest.mark.parametrize(("first", "more"), [(TEXT, 0), (-9, 0), (TEXT, 2), (0, 0)])
def test_it_is_the_attention_with_what_is_inside_masked(by_head, holes, first, more):
    q, k, v = attention(batch=4, more=more)
    out = scaled_dot_product_attention(q, k, v)
    expected = dense(q, k, v, holes, first % k.shape[2])
    given = look_outside(out if by_head else out.transpose(1, 2).flatten(2), q, k, v, holes, first)
    torch.testing.assert_close(given, expected if by_head else expected.transpose(1, 2).flatten(2))
    assert not torch.equal(expected, out)


@pytest.mark.parametrize("shape", [(12, 12), (1, 12), (2, 1, 12), (2, 12, 12), (2, 1, 1, 12), (1, 4, 12, 12), (2, 4, 12, 12)])
@pytest.mark.parametrize("holes", [HOLES[:1], HOLES])
def test_masks_scale_and_fewer_heads_of_keys_stay(shape, holes):
    q, k, v = attention(kv_heads=2)
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    full = mask if mask.ndim == 4 else mask[None, None] if mask.ndim == 2 else mask[:, None]
    out = scaled_dot_product_attention(q, k, v, full, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(look_outside(out, q, k, v, holes, TEXT, mask, 0.3), dense(q, k, v, holes, TEXT, full, 0.3))


def test_nothing_to_erase_is_nothing_done():
    q, k, v = attention()
    out = scaled_dot_product_attention(q, k, v)
    assert look_outside(out, q, k, v, [Hole.of(torch.zeros(3, 3), 1)], TEXT) is out


def test_the_tiny_flux_erases_what_it_would_paint_again(tiny):
    found = erase.figures(tiny, load_recogniser(), case(tiny, TUNING + 3, False))
    assert list(found) == list(erase.WAYS)
    gone, alone, off = found["erased"]
    assert gone == alone == 1 and off < 10 < found["painted anew"][2]


def test_a_scene_whose_thing_is_not_read_has_no_figures(tiny, monkeypatch):
    monkeypatch.setattr(erase, "things_in", lambda read: [[]])
    assert erase.figures(tiny, load_recogniser(), case(tiny, TUNING, False)) == {}


def test_the_command_goes_on_from_its_lines_and_refuses_those_of_another_world(tmp_path, monkeypatch):
    seen = []

    def figures(model, recogniser, one):
        seen.append(one.seed)
        return {} if len(seen) == 1 else {way: [1.0, 0.5, 7.0] for way in erase.WAYS}

    monkeypatch.setattr(erase, "figures", figures)
    out = str(tmp_path / "lines")
    asked = ["--tuning", "--out", out, "--scenes"]
    first = CliRunner().invoke(erase.command, [*asked, "2"])
    assert first.exit_code == 0 and "erase in 1 of them" in first.output
    assert "| erased | 1 | 1.000 (1.000 to 1.000) | 0.500 (0.500 to 0.500) | 7.000 (7.000 to 7.000) |" in first.output
    assert CliRunner().invoke(erase.command, [*asked, "3"]).exit_code == 0
    assert seen == [TUNING, TUNING + 1, TUNING + 2]
    other = CliRunner().invoke(erase.command, [*asked, "2", "--world", "hard"])
    assert other.exit_code == 2 and "another evaluation (world)" in other.output
