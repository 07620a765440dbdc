"""Saliency of a run while it lasts."""

import itertools
from dataclasses import replace

import pytest
import torch

from concept_saliency.core.families import FAMILIES
from concept_saliency.core.live import LiveSaliency
from concept_saliency.core.recording import Recorder
from concept_saliency.core.saliency import saliency

LEVELS = [1.0, 0.9, 0.7, 0.45, 0.3, 0.2, 0.12, 0.05, 0.01, 0.0]
SPREAD = {"flux1": 3.0, "flux2": 3000.0, "qwen_image": 3.0, "z_image": 3000.0}  # of scores


def recorder(family: str) -> Recorder:
    return Recorder(("cat", "dog"), ("sky",), family, FAMILIES[family].DEFAULTS, LEVELS, 19, (64, 96))


def step(family: str, number: int) -> dict:
    scores = torch.randn(19, 2, 3, 24, generator=torch.Generator().manual_seed(number))
    return {"output": SPREAD[family] * scores, "cross-attention": scores}


@pytest.mark.parametrize("family", SPREAD)
def test_each_step_shows_what_saliency_makes_of_the_steps_so_far(family):
    run = recorder(family)
    live, seen = LiveSaliency(run), []
    for number, sigma in enumerate(LEVELS[:-1]):
        for call in range(1 + (number == 2)):  # several prompts have a call each
            run.add(sigma, step(family, 10 * number + call))
        if number in (4, 5):
            continue  # two noise levels in one step of the sampler, and then three
        shown, expected = live.newest(), saliency(run.finish()["output"])
        torch.testing.assert_close(shown.maps, expected.maps[:1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(shown.presence, expected.presence[:1], rtol=1e-5, atol=1e-6)
        assert shown.concepts == ("cat", "dog") and shown.image_size == (64, 96)
        assert live.newest() is None
        seen.append(shown.maps)
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("frames, middle", [(1, 0), (3, 1), (5, 5)])
def test_of_a_clip_the_frame_in_its_middle(frames, middle):
    """Of a video of 1 + 4 + 4 + 4 + 4 frames the middle one is of the third latent frame, the first four after five."""
    run = Recorder(("cat",), ("sky",), "flux1", FAMILIES["flux1"].DEFAULTS, LEVELS, 19, (64, 96), frames=frames, compression=4)
    run.add(1.0, {"output": torch.randn(19, 2, 2, frames * 24, generator=torch.Generator().manual_seed(0))})
    whole = saliency(run.finish()["output"])
    torch.testing.assert_close(LiveSaliency(run).newest().maps, whole.maps[middle:middle + 1])
    assert len(whole.maps) == 2 * (4 * frames - 3)


def test_a_step_back_to_noise_that_does_not_count_changes_nothing():
    """A sampler that restarts adds noise again; what is earlier in the run than the first step that counts is left out, as afterwards."""
    run = recorder("flux2")
    live = LiveSaliency(run)
    assert run.progress(0.3) < FAMILIES["flux2"].DEFAULTS.first_step < run.progress(0.05)
    for number, sigma in enumerate((0.05, 0.3, 0.01)):
        run.add(sigma, step("flux2", number))
        torch.testing.assert_close(live.newest().maps, saliency(run.finish()["output"]).maps[:1], rtol=1e-5, atol=1e-6)


def test_nothing_is_shown_before_the_first_step_and_where_the_model_computes_nan():
    run = recorder("flux1")
    live = LiveSaliency(run)
    assert live.newest() is None
    broken = {space: scores.clone() for space, scores in step("flux1", 0).items()}
    broken["output"][18, 0, 1, 3] = float("nan")
    run.add(1.0, broken)
    assert live.newest() is None
    run.add(0.9, step("flux1", 1))
    finite = run.recordings([0.9])["output"]
    torch.testing.assert_close(live.newest().maps, saliency(replace(finite, scores=finite.scores[:, :, :1])).maps)
