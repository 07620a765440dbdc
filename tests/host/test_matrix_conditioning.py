"""Matrix: conditioning. However prompts are combined, the picture is the same and only positive prompts are recorded."""

import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_perpneg as perpneg
import pytest
import torch
from oracle import call_node, custom_sample


def sampled(flux, positive, **settings):
    return lambda model: flux.sample(model, positive=positive, **settings)


def mask(left: float, right: float) -> torch.Tensor:
    picture = torch.zeros(1, 96, 128)
    picture[:, :, int(left * 128):int(right * 128)] = 1
    return picture


CELLS = {
    "CFG 1": lambda f: (f.conditioning(1), {}),
    "CFG 4": lambda f: (f.conditioning(1), {"cfg": 4.0}),
    "batch of 3": lambda f: (f.conditioning(1), {"batch": 3}),
    "batch of 3, CFG 4": lambda f: (f.conditioning(1), {"batch": 3, "cfg": 4.0}),
    "negative longer than positive": lambda f: (f.conditioning(1), {"cfg": 4.0, "negative": f.conditioning(2, tokens=18)}),
    "negative of another length, in a call of its own": lambda f: (f.conditioning(1), {
        "cfg": 4.0, "negative": f.conditioning(2, tokens=61)}),
    "two masked positives": lambda f: (f.conditioning(1, mask=mask(0, 0.5), mask_strength=1.0, set_area_to_bounds=False)
                                       + f.conditioning(3, mask=mask(0.5, 1), mask_strength=1.0, set_area_to_bounds=False), {"cfg": 4.0}),
    "two masked positives, batch of 2": lambda f: (f.conditioning(1, mask=mask(0, 0.5), mask_strength=1.0, set_area_to_bounds=False)
                                                   + f.conditioning(3, mask=mask(0.5, 1), mask_strength=1.0, set_area_to_bounds=False),
                                                   {"cfg": 4.0, "batch": 2}),
    "positives of two lengths": lambda f: (f.conditioning(1) + f.conditioning(3, tokens=61), {"cfg": 4.0}),
    "timestep ranges": lambda f: (f.conditioning(1, start_percent=0.0, end_percent=0.5)
                                  + f.conditioning(3, start_percent=0.5, end_percent=1.0), {"steps": 4, "cfg": 2.0}),
    "ConditioningCombine": lambda f: (f.conditioning(1) + f.conditioning(3) + f.conditioning(4), {"cfg": 4.0}),
    "attention mask": lambda f: (f.conditioning(1, attention_mask=torch.rand(1, 57, 57), attention_mask_img_shape=(6, 8)), {}),
    "odd sizes": lambda f: (f.conditioning(1), {"size": (13, 9), "cfg": 4.0}),
}


@pytest.mark.parametrize("cell", CELLS)
def test_conditioning(flux, check, cell):
    positive, settings = CELLS[cell](flux)
    recording = check(sample=sampled(flux, positive, **settings), prompts=positive)
    assert recording.scores.shape[0] == settings.get("steps", 3) and recording.scores.shape[2] == settings.get("batch", 1)


def test_an_area_prompt(flux, check, record_property):
    positive = flux.conditioning(1) + flux.conditioning(3, area=(6, 8, 0, 0), strength=1.0)
    record_property("refused", "area prompts are not recorded, and the node says so; the others are")
    check(sample=sampled(flux, positive, cfg=4.0), prompts=positive[:1], notes="apply to an area only")


def test_area_and_mask_prompts_without_a_whole_one(flux, check, record_property):
    positive = flux.conditioning(3, area=(6, 8, 0, 0), strength=1.0)
    record_property("refused", "with area prompts alone nothing is recorded, and the node says so")
    assert check(sample=sampled(flux, positive), prompts=positive, notes="apply to an area only") is None


GUIDERS = {
    "DualCFGGuider": lambda model, a, b, c: call_node(custom.DualCFGGuider, model=model, cond1=a, cond2=b, negative=c, cfg_conds=2.0,
                                                      cfg_cond2_negative=3.0, style="regular"),
    "PerpNegGuider": lambda model, a, b, c: call_node(perpneg.PerpNegGuider, model=model, positive=a, negative=b, empty_conditioning=c,
                                                      cfg=3.0, neg_scale=1.0),
}


@pytest.mark.parametrize("guider", GUIDERS)
def test_guiders_of_three_prompts(flux, check, guider):
    def sample(model):
        [guided] = GUIDERS[guider](model, *(flux.conditioning(seed) for seed in (1, 2, 3)))
        return custom_sample(model, guided)

    check(sample=sample, prompts=flux.conditioning(1))
