"""What is read from the maps: how surely a thing is there, when in the run it was seen, where its mask ends."""

import pytest
import torch

from concept_saliency.core.families.flux1 import DEFAULTS
from concept_saliency.core.masks import Shaping, mask, token_size
from concept_saliency.core.recording import Recorder, Recording
from concept_saliency.core.saliency import Saliency, parse_layers, presence, saliency


def seen(maps: torch.Tensor, size: tuple[int, int] | None = None) -> Saliency:
    """Maps B x C x h x w of "a", "b" and so on without rivals; one pixel a token if no size is given."""
    size = size or tuple(maps.shape[2:])
    return Saliency(tuple("abcd"[:maps.shape[1]]), maps, size, size, maps.amax((2, 3)), (), torch.zeros(len(maps), 0, *maps.shape[2:]))


def test_a_small_thing_that_is_surely_there_is_present():
    """A bird of two tokens in a sky of a hundred: presence is how sure the model is of the bird, not how much of the picture it takes."""
    maps = torch.zeros(1, 2, 10, 10)
    maps[0, 0, 3, 4:6] = 0.9
    maps[0, 1] = 0.3
    torch.testing.assert_close(presence(maps), torch.tensor([[0.9, 0.3]]))
    maps[0, 0, 3, 5] = 0.5
    assert presence(maps)[0, 0].item() == pytest.approx(0.7), "the mean of the two strongest"
    assert presence(torch.full((1, 1, 2, 2), 0.4)).item() == pytest.approx(0.4), "one token at least"


def test_every_map_is_cut_at_its_own_threshold():
    """A strong concept and a faint one, in one mask or in two pictures: the faint one's own ground is not in its mask."""
    strong, faint = torch.full((8, 8), 0.3), torch.full((8, 8), 0.02)
    strong[:, :2], faint[:2] = 0.9, 0.2
    both = seen(torch.stack((strong, faint))[None])
    assert torch.equal(mask(both, "a", "otsu")[0], (strong > 0.5).float())
    assert torch.equal(mask(both, "b", "otsu")[0], (faint > 0.1).float())
    assert torch.equal(mask(both, "a + b", "otsu")[0], ((strong > 0.5) | (faint > 0.1)).float())
    batch = seen(torch.stack((strong, faint))[:, None])
    assert torch.equal(mask(batch, "a", "otsu"), torch.stack((strong > 0.5, faint > 0.1)).float())
    for method, expected in (("mean", faint > faint.mean()), ("percentile", faint > 0.1), ("absolute", faint > 0.1)):
        assert torch.equal(mask(both, "b", method, 0.15 if method == "absolute" else 0.6)[0], expected.float()), method


def test_a_soft_mask_has_no_crumbs_outside():
    """Less than one step of 8 bits is nothing: a segmenter downstream would make an island of it. What is more stays as it is."""
    maps = torch.tensor([[[[0.0039, 0.0040, 0.5, 1.0]]]])
    torch.testing.assert_close(mask(seen(maps), "a", "soft")[0, 0], torch.tensor([0.0, 0.0040, 0.5, 1.0]))
    inverted = mask(seen(maps), "a", "soft", shaping=Shaping(invert=True))[0, 0]
    torch.testing.assert_close(inverted, torch.tensor([1.0, 0.9960, 0.5, 0.0]))
    two = torch.tensor([[[[0.3, 0.6]], [[0.5, 0.2]]]])
    torch.testing.assert_close(mask(seen(two), "a + b", "soft")[0, 0], torch.tensor([0.5, 0.6]))


def recorder(schedule) -> Recorder:
    return Recorder(["a"], [], "flux1", DEFAULTS, schedule, 2, (16, 32))


def test_progress_is_the_share_of_the_run_in_whichever_direction_it_goes():
    falling = recorder([1.0, 0.7, 0.2, 0.0])
    assert [falling.progress(sigma) for sigma in (1.0, 0.7, 0.2, 0.0)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    rising = recorder([0.0, 0.2, 0.7, 1.0])  # from the picture to noise, as when it is unsampled
    assert [rising.progress(sigma) for sigma in (0.0, 0.2, 0.7, 1.0)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert falling.progress(0.45) == pytest.approx(0.5), "between two steps, as second-order samplers look"


def test_steps_stand_in_the_order_of_the_run_however_they_came():
    run = recorder([1.0, 0.6, 0.3, 0.0])
    for sigma in (0.3, 1.0, 0.6):
        run.add(sigma, {"output": torch.full((2, 1, 1, 2), sigma)})
    found = run.finish()["output"]
    assert found.sigmas == (1.0, 0.6, 0.3) and found.scores[:, 0, 0, 0, 0, 0].tolist() == pytest.approx([1.0, 0.6, 0.3])
    assert found.layers == (0, 1) and recorder([1.0, 0.0]).finish() == {}


def test_a_token_s_size_is_the_mean_of_its_sides_in_pixels():
    assert token_size(seen(torch.rand(1, 1, 4, 8), (64, 128))) == 16
    assert token_size(seen(torch.rand(1, 1, 4, 8), (80, 96))) == 16


def test_a_higher_temperature_makes_maps_even_and_none_is_the_model_s_own():
    scores = torch.tensor([3.0, 1.0, 0.0]).view(1, 1, 1, 3, 1, 1)
    one = Recording(("a", "b"), ("c",), scores, (0.5,), (0.0,), (0,), 1, "output", "flux1", DEFAULTS, (16, 16))
    for temperature, expected in ((0.0, [3, 1, 0]), (1.0, [3, 1, 0]), (2.0, [1.5, 0.5, 0])):
        shares = torch.tensor(expected, dtype=torch.float32).softmax(0)
        torch.testing.assert_close(saliency(one, temperature=temperature).maps.flatten(), shares[:2])
    with pytest.raises(ValueError, match="temperature is -1, expected 0"):
        saliency(one, temperature=-1)


def test_a_range_of_layers_may_be_one_layer():
    assert parse_layers("3-3", range(5), [4]) == [3]
