"""Faithfulness: a mask is painted anew and the rest stays; figures of one scene, and their table."""

import pytest
import torch
from click.testing import CliRunner

from concept_saliency.cli import evaluate_faithfulness as faith
from concept_saliency.cli.evaluate_options import TUNING
from concept_saliency.cli.map_options import case
from concept_saliency.demo.codec import decode
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.recogniser import load_recogniser


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def test_what_is_outside_is_as_it_was_and_the_inside_is_new(tiny):
    """The codec looks some pixels around itself: far from the mask the pictures are the same."""
    latents = case(tiny, 7, False).latents[:, :, :16, :16]
    inside = torch.zeros(1, 16, 16, dtype=torch.bool)
    plain = decode(tiny.codec, latents)
    assert torch.allclose(tiny.inpaint(latents, inside, [3], 2), plain, atol=1e-4), "nothing to paint"
    inside[:, :, 12:] = True
    painted = tiny.inpaint(latents, inside, [3], 2)
    assert torch.allclose(painted[..., :32], plain[..., :32], atol=2e-5)
    assert (painted - plain)[..., 104:].abs().mean() > 0.02
    assert torch.equal(painted, tiny.inpaint(latents, inside, [3], 2))
    assert not torch.equal(painted, tiny.inpaint(latents, inside, [4], 2)), "another seed, another picture"


def test_elsewhere_is_as_large_and_covers_the_least_of_the_thing():
    inside, thing = torch.zeros(2, 12, 16, dtype=torch.bool)
    inside[2:7, 3:9] = thing[1:8, 2:10] = True
    moved = faith.elsewhere(inside, thing)
    assert moved.sum() == inside.sum() and not (moved & thing).any()
    everywhere = ~torch.zeros_like(thing)
    assert faith.elsewhere(everywhere, thing).all(), "there is no elsewhere"
    assert not faith.elsewhere(torch.zeros_like(thing), thing).any()


class Grey:
    """Paints grey."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def inpaint(self, latents, inside, seeds, steps):
        return torch.where(inside.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, None], 0.5, decode(self.model.codec, latents))


def test_a_thing_that_is_painted_grey_is_gone_and_elsewhere_it_stays(tiny, monkeypatch):
    monkeypatch.setattr(faith, "WAYS", {way: faith.WAYS[way] for way in ("auto", "the thing itself")})
    found = faith.figures(Grey(tiny), load_recogniser(), case(tiny, TUNING + 2, False))  # its masks are not empty
    assert list(found) == ["auto", "the thing itself"]
    for figures in found.values():
        assert set(figures) == set(faith.COLUMNS) and 0 < figures["share"] < 0.5
        assert (figures["gone"], figures["gone elsewhere"], figures["more"]) == (1, 0, 1)
        assert figures["presence"] > figures["presence elsewhere"] + 0.2


def test_the_command_goes_on_from_its_lines_and_refuses_those_of_another_world(tmp_path, monkeypatch):
    seen = []

    def figures(model, recogniser, one):
        seen.append(one.seed)
        return {} if len(seen) == 1 else {way: dict.fromkeys(faith.COLUMNS, 0.5) for way in faith.WAYS}

    monkeypatch.setattr(faith, "figures", figures)
    out = str(tmp_path / "lines")
    asked = ["--tuning", "--out", out, "--scenes"]
    first = CliRunner().invoke(faith.command, [*asked, "2"])
    assert first.exit_code == 0 and "read in 1 of them" in first.output and "| auto | 0.500 (0.500 to 0.500) |" in first.output
    assert CliRunner().invoke(faith.command, [*asked, "3"]).exit_code == 0
    assert seen == [TUNING, TUNING + 1, TUNING + 2]
    other = CliRunner().invoke(faith.command, [*asked, "2", "--world", "hard"])
    assert other.exit_code == 2 and "another evaluation (world)" in other.output
