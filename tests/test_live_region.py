"""Live regions: the rule that makes a region of a run's words, and the tiny Flux that draws with it."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from concept_saliency.cli.evaluate_regions import WAYS, asked, judged, table
from concept_saliency.core.families import flux1, flux2
from concept_saliency.core.live_region import RegionRule, shares
from concept_saliency.core.masks import Shaping
from concept_saliency.core.recording import Recording
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.recogniser import CLASSES


def recording(defaults=flux1.DEFAULTS, steps=2) -> Recording:
    """A cat in the left half of both pictures, in the second one hardly; a dog nowhere."""
    scores = torch.zeros(steps, 1, 2, 3, 4, 8)
    scores[:, :, 0, 0, :, :4], scores[:, :, 1, 0, :, :4] = 9.0, 0.2
    scores[:, :, :, 2, :, 4:] = 9.0
    sigmas = tuple(1 - step / 20 for step in range(steps))
    return Recording(("cat", "dog"), ("sky",), scores, sigmas, tuple(step / 20 for step in range(steps)), (0,), 1, "output", "flux1",
                     defaults, (64, 128))


def test_a_region_is_the_words_place_in_pictures_that_have_it():
    found = RegionRule(strength=0.7, min_presence=0.5).region(recording(), (8, 16))
    assert found.weights.shape == (2, 8, 16) and found.weights.dtype == torch.float32
    torch.testing.assert_close(found.weights[0, :, :7], torch.full((8, 7), 0.7))
    assert not found.weights[0, :, 9:].any() and not found.weights[1].any()
    assert found.presence[0] > 0.99 and 0.3 < found.presence[1] < 0.5
    assert RegionRule(min_presence=0.0).region(recording(), (8, 16)).weights[1].any()


def test_how_surely_a_region_s_words_are_in_each_picture_by_hand():
    """Against a rival and another word of score 0 the cat's 0.2 is a share of e^0.2 / (e^0.2 + 2); as surely as is asked for is enough."""
    found = RegionRule().region(recording(), (8, 16))
    assert found.presence[1].item() == pytest.approx(1.2214 / 3.2214, abs=1e-3)
    barely, not_quite = (RegionRule(min_presence=found.presence[1].item() + more) for more in (0.0, 1e-6))
    assert barely.region(recording(), (8, 16)).weights[1].any() and not not_quite.region(recording(), (8, 16)).weights[1].any()


def test_unless_said_a_word_has_a_region_where_it_beats_its_rivals():
    """Above its own mean, the paper's rule, the cat would have one where the sky is surer."""
    rivalled = recording()
    rivalled.scores[:, :, :, 2, :, :4] = 9.5
    assert RegionRule(method="mean", min_presence=0.0).region(rivalled, (8, 16)).weights.any()
    assert not RegionRule(min_presence=0.0).region(rivalled, (8, 16)).weights.any()


def test_a_run_s_rule_and_its_regions_stay_as_they_are():
    rule = RegionRule()
    for thing, name in ((rule, "strength"), (rule.region(recording(), (8, 16)), "weights")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, None)


def test_shaping_is_in_pixels_of_the_picture():
    plain, grown = (RegionRule(shaping=Shaping(grow=grow)).region(recording(), (8, 16)).weights[0] for grow in (0, 8))
    assert (grown - plain).sum() == pytest.approx(8, abs=1), "one column of the latent, eight cells high"


def test_every_step_so_far_counts_whatever_a_familys_first_one_is():
    early = recording(flux2.DEFAULTS, steps=4)
    early.scores[3] = 0.0  # the newest step alone would show nothing
    assert RegionRule(min_presence=0.0).region(early, (4, 8)).weights[0, :, :3].all()
    late = recording(steps=4)
    late = replace(late, scores=late.scores * torch.tensor([0, 0, 0, 1.0]).view(4, 1, 1, 1, 1, 1))
    assert RegionRule().region(late, (4, 8)).presence[0].item() == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 1) / 4, abs=1e-3)


def test_overlapping_regions_share_and_leave_nothing_over():
    weights = [torch.tensor([[1.0, 0.8, 0.3, 0.0]]), torch.tensor([[1.0, 0.4, 0.3, 0.0]])]
    base, parts = shares(weights)
    torch.testing.assert_close(base, torch.tensor([[0.0, 0.0, 0.4, 1.0]]))
    torch.testing.assert_close(torch.stack(parts), torch.tensor([[[0.5, 2 / 3, 0.3, 0.0]], [[0.5, 1 / 3, 0.3, 0.0]]]))


@pytest.mark.parametrize("settings", [dict(strength=1.1), dict(min_presence=-0.1), dict(threshold=2.0)])
def test_bad_rules_are_refused(settings):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        RegionRule(**settings)


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def test_the_tiny_flux_repaints_within_a_region_only(tiny):
    asked = dict(prompts=["a cat on sand"], inside=["a robot on sand"], seeds=[3], concepts="cat", size=(64, 96), steps=4, start=0.5)
    plain = tiny.draw(asked["prompts"], asked["seeds"], asked["size"], 4)
    everywhere = dict(method="absolute", threshold=0.0, min_presence=0.0)
    none, region, whole = tiny.repaint(**asked, rule=RegionRule(min_presence=1.0))
    assert torch.equal(none, plain) and not region.weights.any() and len(whole.sigmas) == 4
    swapped, region, _ = tiny.repaint(**asked, rule=RegionRule(**everywhere))
    assert region.weights.shape == (1, 8, 12) and region.weights.all() and not torch.equal(swapped, plain)
    given, nothing, _ = tiny.repaint(**asked, weights=region.weights)
    assert torch.equal(given, swapped) and nothing is None


def scene(**things: tuple[int, int, int, int]) -> torch.Tensor:
    """What a recogniser might read: classes H x W, each thing in its rows and columns."""
    labels = torch.zeros(64, 64, dtype=torch.int64)
    for thing, (top, bottom, left, right) in things.items():
        labels[top:bottom, left:right] = CLASSES.index(thing)
    return labels


def test_the_evaluation_says_what_became_of_each_thing():
    before = scene(cat=(8, 28, 8, 28), house=(36, 60, 36, 60))
    good = judged(scene(robot=(8, 28, 10, 26), house=(36, 60, 36, 59)), before, "cat", "house", "robot")
    assert good == {"there": True, "gone": True, "kept": True, "all": True}
    elsewhere = judged(scene(robot=(36, 60, 4, 24), house=(36, 60, 36, 60)), before, "cat", "house", "robot")
    assert elsewhere == {"there": False, "gone": True, "kept": True, "all": False}
    assert judged(before, before, "cat", "house", "robot") == {"there": False, "gone": False, "kept": True, "all": False}
    moved = judged(scene(robot=(8, 28, 8, 28), house=(36, 60, 26, 50), sun=(0, 6, 50, 60)), before, "cat", "house", "robot")
    assert moved == {"there": True, "gone": True, "kept": False, "all": False}
    line = {"number": 0, "both": True, "empty": False, "mask IoU": 0.5, "seconds": dict.fromkeys(WAYS, 2.0), **dict.fromkeys(WAYS, good)}
    text = "\n".join(table([line, {**line, "both": False}]))
    assert "2 prompts" in text and "in 1, of which" in text and text.count("1.00 (1.00 to 1.00)") == 12
    x, y, z, _ = asked(3)
    assert len({x, y, z}) == 3 and asked(3) == asked(3) != asked(4)
