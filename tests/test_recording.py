"""Recordings: what is let in, which steps of a long run are kept, how pictures are continued to whole tokens."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from concept_saliency.core.families import flux1
from concept_saliency.core.recording import Recorder, Recording, joined, padded
from concept_saliency.core.saliency import saliency


@pytest.fixture
def whole() -> Recording:
    """Two steps, three of six blocks, one picture of 2 x 4 tokens."""
    scores = torch.arange(48, dtype=torch.float32).view(2, 3, 1, 1, 2, 4)
    return Recording(("cat",), (), scores, (1.0, 0.5), (0.0, 0.5), (0, 2, 5), 6, "output", "flux1", flux1.DEFAULTS, (32, 64), singles=1)


@pytest.mark.parametrize("wrong, said", [
    ({"scores": torch.zeros(2, 3, 1, 1, 8)}, r"scores have shape \(2, 3, 1, 1, 8\), expected steps x layers x pictures"),
    ({"scores": torch.zeros(2, 3, 1, 1, 2, 4, 1)}, "scores have shape"),
    ({"scores": torch.zeros(2, 3, 0, 1, 2, 4)}, "none of them zero"),
    ({"scores": torch.zeros(1, 3, 1, 1, 2, 4)}, "scores have shape"),
    ({"scores": torch.zeros(2, 2, 1, 1, 2, 4)}, "scores have shape"),
    ({"scores": torch.zeros(2, 3, 1, 2, 2, 4)}, "scores have shape"),
    ({"contrast": ("sky",)}, "scores have shape"),
    ({"scores": torch.zeros(2, 3, 1, 1, 2, 4, dtype=torch.float64)}, "scores are torch.float64, expected torch.float32"),
    ({"sigmas": (1, 0.5)}, "sigmas are .*, expected 2 numbers"),
    ({"sigmas": (float("nan"), 0.5)}, "sigmas are .*, expected 2 numbers"),
    ({"progress": (0.0,)}, "progress are .*, expected 2 numbers"),
    ({"progress": (0.0, 0.5, 1.0)}, "progress are"),
    ({"progress": (0.0, float("inf"))}, "progress are"),
    ({"layers": (2, 0, 5)}, "layers are .*layers rising from 0"),
    ({"layers": (0, 2, 2)}, "layers are"),
    ({"layers": (0, 2, 6)}, "layers are"),
    ({"layers": (-1, 2, 5)}, "layers are"),
    ({"layers": (0, 2.0, 5)}, "layers are"),
    ({"layers": (0, 999, 1000), "depth": 10_000}, "layers are"),
    ({"depth": 6.0}, "of 6.0 blocks"),
    ({"singles": 6}, "6 of them single-stream"),
    ({"singles": -1}, "-1 of them single-stream"),
    ({"patch": 0}, "covers 0 pixels"),
    ({"patch": -16}, "covers -16 pixels"),
    ({"patch": 16.0}, "covers 16.0 pixels"),
    ({"frames": 0}, "clips of 0 latent frames"), ({"frames": 2}, "1 pictures are clips of 2 latent frames"),
    ({"frames": 1.0}, "clips of 1.0 latent"), ({"compression": 0}, "stands for 0 of"), ({"compression": 65}, "stands for 65 of"),
    ({"space": "values"}, "space is 'values', expected one of output, cross-attention"),
    ({"image_size": (32, 65)}, r"a picture of \(32, 65\) pixels has \(2, 5\) tokens, but scores have \(2, 4\)"),
    ({"image_size": (33, 64)}, r"has \(3, 4\) tokens")])
def test_one_thing_that_does_not_fit_is_refused(whole, wrong, said):
    with pytest.raises(ValueError, match=said):
        replace(whole, **wrong)


@pytest.mark.parametrize("fitting", [{"contrast": ()}, {"singles": 0}, {"singles": 5}, {"image_size": (17, 49)},
                                     {"patch": 1, "image_size": (2, 4)}, {"layers": (0, 1, 999), "depth": 10_000},
                                     {"progress": (0.5, 0.0)}, {"compression": 64}])
def test_what_is_at_the_limit_is_let_in(whole, fitting):
    assert replace(whole, **fitting).scores is whole.scores


def test_a_latent_frame_stands_for_one_of_the_video_s_unless_said(whole):
    clip = Recording(("cat",), (), whole.scores.repeat(1, 1, 2, 1, 1, 1), (1.0, 0.5), (0.0, 0.5), (0, 2, 5), 6, "output", "flux1",
                     flux1.DEFAULTS, (32, 64), frames=2)
    assert saliency(clip, "all").frames == len(saliency(clip, "all").maps) == 2


def test_a_recording_cannot_be_changed_for_all_nodes_that_were_given_it(whole):
    with pytest.raises(FrozenInstanceError):
        whole.space = "cross-attention"


def test_the_size_the_model_was_shown_is_kept_only_where_it_is_another(whole):
    assert (whole.shown_size, whole.seen_size) == ((32, 64), None)
    larger = whole.at_size([64, 128])
    assert (larger.image_size, larger.shown_size, larger.seen_size) == ((64, 128), (32, 64), (32, 64))
    with pytest.raises(ValueError, match="image_size is"):
        whole.at_size((0, 5))


def test_steps_of_two_recordings_stand_side_by_side(whole):
    later = replace(whole, scores=whole.scores + 100, sigmas=(0.25, 0.1), progress=(0.75, 0.9))
    both = joined([whole, later])
    assert (both.sigmas, both.progress) == ((1.0, 0.5, 0.25, 0.1), (0.0, 0.5, 0.75, 0.9))
    assert torch.equal(both.scores, torch.cat((whole.scores, later.scores)))
    assert torch.equal(joined([whole]).scores, whole.scores), "one alone is itself"


def recorder(steps: int, **options) -> Recorder:
    """Of a run of so many equal steps on a picture of two tokens."""
    return Recorder(["a"], ["b"], "flux1", flux1.DEFAULTS, torch.linspace(1, 0, steps + 1), 2, (16, 32), **options)


@pytest.mark.parametrize("most, kept", [(320, range(10)), (319, range(0, 10, 2)), (160, range(0, 10, 2)), (159, range(0, 10, 3)),
                                        (64, range(0, 10, 5)), (63, [0]), (1, [0])])
def test_a_run_that_would_take_too_much_keeps_every_second_step_or_third_evenly(most, kept):
    """Ten steps of two layers, two concepts and two tokens, in 4 bytes each: 320 bytes, which still fit into 320. The first step is
    always kept."""
    run = recorder(10, max_bytes=most)
    levels = run.schedule[:-1]
    assert run.wants(levels[0])
    for _ in range(2):  # two prompts
        run.add(levels[0], {"output": torch.zeros(2, 1, 2, 2)})
    assert [i for i, level in enumerate(levels) if run.wants(level)] == list(kept)
    assert len(run.notes) == (most < 320), "said once"


def test_both_spaces_count_and_the_limit_is_a_gigabyte_unless_said():
    run = recorder(2)
    seen = torch.zeros(1).expand(2, 1, 1, 250_000_000)  # takes no memory
    run.add(1.0, {"output": seen, "cross-attention": seen})
    assert run.notes == ["Recording all 2 steps would take 8.0 GB; one step in 2 is recorded instead."]
    few = recorder(2)
    few.add(1.0, {"output": torch.zeros(1).expand(1, 1, 1, 125_000_000)})
    assert not few.notes and few.wants(0.5), "just a gigabyte"
    for tokens, said in ((1_006_250_000, "8.1"), (1_006_249_999, "8.0")):  # 8.05 billion bytes, and 8 less
        run = recorder(2)
        run.add(1.0, {"output": torch.zeros(1).expand(1, 1, 1, tokens)})
        assert f"would take {said} GB" in run.notes[0]


def test_what_comes_later_in_a_run_does_not_thin_it():
    run = recorder(4, max_bytes=128)
    for level in run.schedule[:-1]:
        run.add(level, {"output": torch.full((2, 1, 2, 2), level)})
    found = run.finish()["output"]
    assert not run.notes and found.scores.shape == (4, 2, 1, 2, 1, 2) and (found.depth, found.singles) == (2, 0)
    assert (found.frames, found.compression) == (1, 1)
    one = recorder(0, max_bytes=31)
    one.add(1.0, {"output": torch.zeros(2, 1, 2, 2)})
    assert "all 1 steps" in one.notes[0] and one.progress(1.0) == 0


def test_some_layers_alone_are_those_of_the_whole():
    """And give the maps of the whole; of two calls at one noise level, too."""
    run = Recorder(["a"], ["b"], "flux1", flux1.DEFAULTS, [1.0, 0.5, 0.0], 19, (16, 32))
    for level in (1.0, 0.5, 0.5):
        run.add(level, {"output": torch.rand(19, 1, 2, 2, generator=torch.Generator().manual_seed(len(run.steps)))})
    [every], [some] = run.finish().values(), run.finish(run.default_layers).values()
    assert run.default_layers == [15, 16, 17, 18] == list(some.layers) and some.depth == 19
    assert torch.equal(some.scores, every.scores[:, 15:]) and torch.equal(saliency(some).maps, saliency(every).maps)


def test_a_recorder_counts_tokens_that_reach_beyond_the_picture():
    assert Recorder(["a"], [], "flux1", flux1.DEFAULTS, [1.0, 0.0], 2, (33, 32)).grid == (3, 2)
    run = Recorder(["a"], [], "flux1", flux1.DEFAULTS, [1.0, 0.0], 2, (5, 8), patch=4, singles=1)
    run.add(1.0, {"output": torch.arange(8.0).view(2, 1, 1, 4)})
    found = run.finish()["output"]
    assert found.scores[:, 1, 0, 0].tolist() == [[[4, 5], [6, 7]]] and (found.patch, found.depth, found.singles) == (4, 2, 1)


def test_pictures_are_continued_to_the_right_and_below_until_tokens_cover_them():
    picture = torch.arange(6.0).view(1, 1, 2, 3)
    assert padded(picture, 4)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert padded(picture, 1) is picture or torch.equal(padded(picture, 1), picture)
    assert padded(torch.zeros(2, 3, 17, 16)).shape == (2, 3, 32, 16), "tokens of 16 pixels unless said"
