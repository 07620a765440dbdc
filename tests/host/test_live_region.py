"""Concept Region: until it begins the run is the plain one to the last bit; from then on it is what ComfyUI's own masked prompts make."""

import gc
import weakref

import comfy.hooks
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_perpneg as perpneg
import nodes as host_nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from concept_saliency.core.live_region import Region
from concept_saliency.nodes import live_region
from concept_saliency.nodes.concept_attention_image import ConceptAttentionImage
from concept_saliency.nodes.concept_region import ConceptRegion
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from concept_saliency.nodes.saliency_to_mask import ConceptSaliencyToMask
from conftest import Clip
from oracle import Oracle, call_node, of, traces
from test_families import CASES
from test_matrix_neighbours import Control, compiled

STEPS, FIRST = 4, 2  # steps of a run, and the first of them with a region


@pytest.fixture
def region(flux, clip):
    """Concept Region on the small Flux: region(conditioning, concepts, **settings) -> model, runs. A model with random weights sees
    nothing surely, so the strongest 40% of the picture are the region, whatever its presence."""
    def run(conditioning=None, concepts="cat", model=None, clip=clip, contrast="sky, dog", strength=1.0, start_percent=0.45,
            end_percent=1.0, update=0, method="percentile", threshold=0.6, grow=0, feather=0, min_presence=0.0):
        return ConceptRegion.execute(model or flux.patcher, clip, conditioning or flux.conditioning(7), concepts, contrast, strength,
                                     start_percent, end_percent, update, method, threshold, grow, feather, min_presence).result

    return run


@pytest.fixture
def looks(monkeypatch):
    """Every region that is found, in its order."""
    found, usual = [], live_region.RegionRule.region

    def look(self, recording, grid):
        found.append(usual(self, recording, grid))
        return found[-1]

    monkeypatch.setattr(live_region.RegionRule, "region", look)
    return found


class Masked(comfy.samplers.CFGGuider):
    """ComfyUI's own way to the same: from a step on other positive prompts, which the host has prepared with the first ones."""

    def set_conds(self, positive, negative, later=None):
        self.inner_set_conds({"positive": positive, "negative": negative, "later": later})
        self.levels = set()

    def predict_noise(self, x, timestep, model_options, seed=None):
        self.levels.add(float(timestep[0]))
        positive = self.conds["later" if len(self.levels) > FIRST else "positive"]
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, self.conds["negative"], positive, self.cfg,
                                                model_options=model_options, seed=seed)


def inside(conditioning, mask):
    """ConditioningSetMask: ComfyUI's own node."""
    return host_nodes.ConditioningSetMask().append(conditioning, mask, "default", 1.0)[0]


def run(flux, model, positive=None, later=None, batch=1, size=(12, 16), cfg=1.0, sampler="euler", negative=None):
    """What the model makes of every step, and the latent before it. later: see Masked."""
    guider, steps = comfy.samplers.CFGGuider(model) if later is None else Masked(model), []
    prompts = positive or flux.conditioning(1), negative or flux.conditioning(2)
    guider.set_conds(*prompts, *([] if later is None else [later]))
    guider.set_cfg(cfg)
    latent = torch.zeros(batch, flux.channels, *flux.frames, *size)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    guider.sample(comfy.sample.prepare_noise(latent, 0), latent, comfy.samplers.ksampler(sampler), sigmas, seed=0, disable_pbar=True,
                  callback=lambda number, denoised, x, total: steps.append((x.clone(), denoised.clone())))
    assert live_of(model) is None or live_of(model).run is None
    return steps


def live_of(model):
    """All regions of a MODEL."""
    return next((w.__self__ for w in model.get_wrappers(WrappersMP.CALC_COND_BATCH, live_region.KEY)), None)


def same(steps, others) -> list[bool]:
    return [torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(steps, others, strict=True)]


def begins_and_ends_as_it_should(steps, plain, expected):
    assert same(steps, plain)[:FIRST] == [True] * FIRST, "it began too early"
    assert not torch.equal(steps[FIRST][1], plain[FIRST][1]), "it did nothing"
    assert same(steps, expected) == [True] * STEPS, [float((a[1] - b[1]).abs().max()) for a, b in zip(steps, expected)]


CELLS = {
    "plain": {},
    "batch of two": dict(batch=2),
    "13 x 9 latent": dict(size=(13, 9)),
    "CFG 4": dict(cfg=4.0),
    "CFG 4, batch of two": dict(cfg=4.0, batch=2),
    "strength 0.6, feathered, smaller": dict(strength=0.6, feather=8, grow=-4),
}


@pytest.mark.parametrize("cell", CELLS)
def test_it_is_the_hosts_own_masked_prompts(flux, region, looks, cell):
    settings = {"strength": 1.0, **CELLS[cell]}
    of_node = {name: settings.pop(name) for name in ("strength", "feather", "grow") if name in settings}
    model, _ = region(**of_node)
    steps, plain = run(flux, model, **settings), run(flux, flux.patcher, **settings)
    [found] = looks
    weights = found.weights
    assert weights.shape == (settings.get("batch", 1), *settings.get("size", (12, 16)))
    assert 0.1 < weights.mean() < 0.8 and float(weights.max()) == pytest.approx(of_node["strength"])
    later = inside(flux.conditioning(1), 1 - weights) + inside(flux.conditioning(7), weights)
    begins_and_ends_as_it_should(steps, plain, run(flux, flux.patcher, later=later, **settings))
    assert not traces(flux.patcher)


def test_two_regions_share_where_they_overlap(flux, region, looks):
    first, _ = region(strength=0.8)
    both, _ = region(flux.conditioning(8), "dog", model=first, contrast="sky, cat")
    steps = run(flux, both, cfg=3.0)
    one, other = (found.weights for found in looks)
    total = one + other
    assert (total > 1).any() and (total < 1).any() and (one > other).any() and (other > one).any()
    parts = [(1 - total).clamp(min=0), one / total.clamp(min=1), other / total.clamp(min=1)]
    later = sum((inside(flux.conditioning(seed), part) for seed, part in zip((1, 7, 8), parts)), [])
    begins_and_ends_as_it_should(steps, run(flux, flux.patcher, cfg=3.0), run(flux, flux.patcher, later=later, cfg=3.0))
    assert len(live_of(both).regions) == 2 and len(live_of(first).regions) == 1


def lora(seed=7) -> dict:
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(*shape, generator=generator) * 0.05 for shape in ((1792, 4), (4, 256)))
    return {f"diffusion_model.single_blocks.0.linear1.lora_{name}.weight": value for name, value in (("up", up), ("down", down))}


def hooked(conditioning, hooks):
    return [[text, {**more, "hooks": hooks}] for text, more in conditioning]


@pytest.mark.parametrize("keyframes", [False, True])
def test_a_lora_hook_acts_in_its_region_only(flux, region, looks, keyframes):
    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    if keyframes:
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(strength=1.0))
        frames.add(comfy.hooks.HookKeyframe(strength=0.3, start_percent=0.7))
        hooks = hooks.clone()
        hooks.set_keyframes_on_hooks(frames)
    before = {name: value.clone() for name, value in flux.patcher.model.state_dict().items()}
    model, _ = region(hooked(flux.conditioning(7), hooks))
    mode, steps = model.hook_mode, run(flux, model, cfg=3.0)
    assert not model.hook_patches and model.hook_mode == mode and model.hook_patches_backup is None
    assert all(torch.equal(value, before[name]) for name, value in flux.patcher.model.state_dict().items())
    [found] = looks
    weights = found.weights
    later = inside(flux.conditioning(1), 1 - weights) + inside(hooked(flux.conditioning(7), hooks), weights)
    begins_and_ends_as_it_should(steps, run(flux, flux.patcher, cfg=3.0), run(flux, flux.patcher, later=later, cfg=3.0))
    without = run(flux, region()[0], cfg=3.0)[FIRST][1]
    change = (steps[FIRST][1] - without).abs().amax(dim=1)
    assert change[weights == 0].max() < 1e-5 < 1e-2 < change[weights == 1].mean(), "the LoRA reaches beyond its region, or does nothing"


def test_hooks_of_the_prompt_and_of_the_region_are_both_there(flux, region, looks):
    outer, inner = (comfy.hooks.create_hook_lora(lora(seed), 1.0, 0.0) for seed in (7, 8))
    positive, conditioning = hooked(flux.conditioning(1), outer), hooked(flux.conditioning(7), inner)
    steps = run(flux, region(conditioning)[0], positive)
    later = inside(positive, 1 - looks[0].weights) + inside(conditioning, looks[0].weights)
    begins_and_ends_as_it_should(steps, run(flux, flux.patcher, positive), run(flux, flux.patcher, positive, later=later))


@pytest.mark.parametrize("whose", ["the region's", "the prompt's"])
def test_a_controlnet_stays_where_it_was_put(flux, region, looks, whose):
    control = dict(control=Control(), control_apply_to_uncond=True)
    prompt, conditioning = ({}, control) if whose == "the region's" else (control, {})
    positive, conditioning = flux.conditioning(1, **prompt), flux.conditioning(7, **conditioning)
    steps, plain = run(flux, region(conditioning)[0], positive, cfg=3.0), run(flux, flux.patcher, positive, cfg=3.0)
    weights = looks[0].weights
    conditioning[0][1].pop("control_apply_to_uncond", None)  # ComfyUI would give it to the negative prompt, everywhere
    later = inside(positive, 1 - weights) + inside(conditioning, weights)
    if whose == "the prompt's":
        later[1][1]["control"] = Nothing()  # or ComfyUI would give it the prompt's
    begins_and_ends_as_it_should(steps, plain, run(flux, flux.patcher, positive, later=later, cfg=3.0))


class Nothing(Control):
    def get_control(self, *args):
        return {"input": [], "output": []}


def at(left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(1, 12, 16)
    mask[..., left:right] = 1
    return mask


def test_masks_areas_and_several_prompts(flux, region, looks):
    """At one step, against each prediction alone: what the prompts have together is shared with the region's own mask and area."""
    positive = inside(flux.conditioning(1), at(0, 10)) + flux.conditioning(3, strength=0.5)
    positive += flux.conditioning(4, area=(6, 8, 0, 4), strength=2.0)
    conditioning = inside(flux.conditioning(7), at(0, 12)) + flux.conditioning(8, area=(12, 10, 0, 6))
    steps, plain = run(flux, region(conditioning)[0], positive), run(flux, flux.patcher, positive)
    weights = looks[0].weights
    assert same(steps, plain)[:FIRST] == [True] * FIRST
    x = steps[FIRST][0]
    alone = {seed: predicted(of_prompt(flux, flux.conditioning(seed)), x) for seed in (1, 3, 7)}
    alone |= {seed: predicted(of_prompt(flux, flux.conditioning(seed, area=area)), x)
              for seed, area in ((4, (6, 8, 0, 4)), (8, (12, 10, 0, 6)))}
    four, eight = torch.zeros(1, 12, 16), torch.zeros(1, 12, 16)
    four[:, :6, 4:12] = 2.0 * soft_edges(6, 8, top=False, bottom=True, left=True, right=True)
    eight[:, :, 6:] = soft_edges(12, 10, top=False, bottom=False, left=True, right=False)
    own = {1: at(0, 10), 3: torch.full((1, 12, 16), 0.5), 4: four}
    total = sum(own.values())
    shares = {seed: weight * (1 - weights) for seed, weight in own.items()}
    shares |= {7: at(0, 12) * weights * total, 8: eight * weights * total}
    expected = sum(alone[seed] * share for seed, share in shares.items()) / sum(shares.values())
    torch.testing.assert_close(steps[FIRST][1], expected, rtol=2e-3, atol=2e-3)


def test_where_its_conditioning_is_not_the_prompt_stays(flux, region, looks):
    """A conditioning that has ended leaves its region to the prompt, and so does one with a mask where that mask is not."""
    plain = run(flux, flux.patcher)
    assert all(same(run(flux, region(flux.conditioning(7, start_percent=0.0, end_percent=0.2))[0]), plain))
    steps = run(flux, region(inside(flux.conditioning(7), at(0, 6)))[0])
    x, weights = steps[FIRST][0], looks[-1].weights
    prompt, other = (predicted(of_prompt(flux, flux.conditioning(seed)), x) for seed in (1, 7))
    assert weights[..., :6].any() and weights[..., 6:].any()
    torch.testing.assert_close(steps[FIRST][1], torch.lerp(prompt, other, weights * at(0, 6)), rtol=2e-3, atol=2e-3)


def soft_edges(height, width, top, bottom, left, right) -> torch.Tensor:
    """An area's weights: ComfyUI fades them over a quarter of a side, at most eight cells, where they do not end with the picture."""
    weights = torch.ones(height, width)
    for axis, size, ends in ((0, height, (top, bottom)), (1, width, (left, right))):
        fade = min(8, size // 4)
        for t in range(fade):
            for end, there in zip((t, size - 1 - t), ends):
                if there:
                    weights.select(axis, end).mul_((t + 1) / fade)
    return weights


def predicted(guider, x, step=FIRST):
    """What a guider makes of a latent x at a step; the first with a region if no other is named."""
    seen = []

    def one_pass(model, noise, sigmas, extra_args=None, **kwargs):
        seen.append(model(x, sigmas[:1].expand(len(x)), **extra_args))
        return x

    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "simple", STEPS)[step:]
    guider.sample(torch.zeros_like(x), torch.zeros_like(x), comfy.samplers.KSAMPLER(one_pass), sigmas, disable_pbar=True)
    return seen[0]


def of_prompt(flux, positive):
    """A guider of the plain model with one prompt alone."""
    guider = comfy.samplers.CFGGuider(flux.patcher)
    guider.set_conds(positive, flux.conditioning(2))
    return guider


def test_below_min_presence_nothing_is_done_and_it_is_said(flux, region):
    model, runs = region(min_presence=1.0)
    assert same(run(flux, model, cfg=3.0), run(flux, flux.patcher, cfg=3.0)) == [True] * STEPS
    [note] = runs.find(None)[0].notes
    assert "changed nothing: when it was looked for, the presence of 'cat' was 0." in note and "min_presence is 1" in note
    assert runs.recording(None, "output")[1] == [note], "Concept Saliency says it"


def test_in_a_batch_each_picture_has_its_own_region(flux, region, monkeypatch):
    usual = live_region.RegionRule.region

    def only_in_the_second(rule, recording, grid):
        found = usual(rule, recording, grid)
        return Region(found.weights * torch.tensor([0.0, 1.0])[:, None, None], torch.tensor([0.1, 0.9]))

    monkeypatch.setattr(live_region.RegionRule, "region", only_in_the_second)
    model, runs = region(min_presence=0.3)
    steps, plain = run(flux, model, batch=2), run(flux, flux.patcher, batch=2)
    change = (steps[-1][1] - plain[-1][1]).abs().amax(dim=(1, 2, 3))
    assert change[0] < 1e-4 < 1e-2 < change[1]
    [note] = runs.find(None)[0].notes
    assert "changed nothing in picture 1: when it was looked for, the presence of 'cat' was 0.10" in note


def test_an_empty_mask_and_a_run_without_a_step_before_are_said(flux, region):
    for settings, words in ((dict(method="absolute", threshold=1.0), "the mask of 'cat' was empty"),
                            (dict(start_percent=0.97, end_percent=0.98), "'cat' was never looked for")):
        model, runs = region(**settings)
        assert same(run(flux, model), run(flux, flux.patcher)) == [True] * STEPS
        assert words in " ".join(runs.find(None)[0].notes)


def test_from_the_very_start_it_begins_with_the_second_step(flux, region, looks):
    steps, plain = run(flux, region(start_percent=0.0)[0]), run(flux, flux.patcher)
    assert same(steps, plain)[0] and not torch.equal(steps[1][1], plain[1][1]) and len(looks) == 1


def test_it_ends_where_it_should(flux, region):
    steps, plain = run(flux, region(end_percent=0.7)[0]), run(flux, flux.patcher)
    x = steps[-1][0]
    assert not torch.equal(x, plain[-1][0])
    torch.testing.assert_close(steps[-1][1], predicted(of_prompt(flux, flux.conditioning(1)), x, STEPS - 1), rtol=1e-4, atol=1e-4)


def test_the_words_are_read_off_the_prompt_alone_and_again_when_wanted(flux, region, looks):
    oracle, prompts = Oracle(flux.conditioning(1)), flux.conditioning(1)
    model, runs = region(model=oracle.attached(flux.patcher), start_percent=0.3, update=1)
    oracle.vectors = of(model).inputs.vectors
    run(flux, model, prompts, cfg=3.0)
    recording = runs.find(None)[0].recordings["output"]
    expected = oracle.scores(recording.sigmas)
    assert (recording.scores.flatten(4) - expected).abs().max() <= 5e-4 * expected.abs().max() and len(recording.sigmas) == STEPS
    assert len(looks) == STEPS - 2 and not torch.equal(looks[0].weights, looks[1].weights)
    looks.clear()
    run(flux, region(start_percent=0.0, update=2)[0])
    assert len(looks) == 2


def test_concept_saliency_shows_the_mask_that_was_used(flux, region, looks):
    model, runs = region()
    run(flux, model)
    maps = ConceptSaliency.execute(runs, "auto", 0.0, 0.4, "output", 0.0).result[0]
    mask = ConceptSaliencyToMask.execute(maps, "cat", "percentile", 0.6, 0, 0, False, 0, False).result[0]
    pooled = torch.nn.functional.avg_pool2d(mask[:, None], 8)[:, 0]
    torch.testing.assert_close(pooled, looks[0].weights)


GUIDERS = {
    "BasicGuider": lambda f, model, seed=1: call_node(custom.BasicGuider, model, f.conditioning(seed)),
    "CFGGuider": lambda f, model, seed=1: call_node(custom.CFGGuider, model, f.conditioning(seed), f.conditioning(2), 3.0),
    "DualCFGGuider": lambda f, model, seed=1: call_node(custom.DualCFGGuider, model, *map(f.conditioning, (seed, 3, 2)), 2.0, 3.0,
                                                        "regular"),
    "DualCFGGuider, nested": lambda f, model, seed=1: call_node(custom.DualCFGGuider, model, *map(f.conditioning, (seed, 3, 2)), 2.0, 3.0,
                                                                "nested"),
    "PerpNegGuider": lambda f, model, seed=1: call_node(perpneg.PerpNegGuider, model, *map(f.conditioning, (seed, 2, 3)), 3.0, 0.0),
}


@pytest.mark.parametrize("name", GUIDERS)
def test_guiders(flux, region, looks, name):
    """Inside its region it is as if its conditioning were the guider's positive prompt, outside as without."""
    def sampled(model):
        steps = []
        [guider], [sigmas] = GUIDERS[name](flux, model), call_node(custom.BasicScheduler, model, "simple", STEPS, 1.0)
        [noise], [kind] = call_node(custom.RandomNoise, 5), call_node(custom.KSamplerSelect, "euler")
        latent = {"samples": torch.zeros(1, 16, 12, 16)}
        usual = guider.predict_noise

        def spy(x, timestep, *args, **kwargs):
            steps.append((x.clone(), usual(x, timestep, *args, **kwargs).clone()))
            return steps[-1][1]

        guider.predict_noise = spy
        call_node(custom.SamplerCustomAdvanced, noise, guider, kind, sigmas, latent)
        return steps

    steps, plain = sampled(region()[0]), sampled(flux.patcher)
    assert same(steps, plain)[:FIRST] == [True] * FIRST
    x, [found] = steps[FIRST][0], looks
    base, own = (predicted(GUIDERS[name](flux, flux.patcher, seed)[0], x) for seed in (1, 7))
    torch.testing.assert_close(steps[FIRST][1], torch.lerp(base, own, found.weights[:, None]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_step_caches(flux, region, looks, kind, place):
    def cached(model):
        return call_node(getattr(easycache, f"{kind}Node"), model, 3.0, 0.15, 0.95, False)[0]

    model = cached(region()[0]) if place == "after" else region(model=cached(flux.patcher))[0]
    if kind == "EasyCache" and not hasattr(easycache.EasyCacheHolder, "can_apply_cache_diff"):
        with pytest.raises(ValueError, match="EasyCache.*cannot be used with Concept Region.*Take LazyCache"):
            flux.sample(model, steps=8)
        return
    latent, plain = flux.sample(model, steps=8), flux.sample(cached(flux.patcher), steps=8)
    assert len(looks) == 1 and torch.isfinite(latent).all() and not torch.equal(latent, plain)


@pytest.mark.long
@pytest.mark.parametrize("place", ["before", "after"])
def test_torch_compile(flux, region, looks, place):
    torch.compiler.reset()
    model = compiled(region()[0], "eager") if place == "after" else region(model=compiled(flux.patcher, "eager"))[0]
    expected = run(flux, region()[0], cfg=3.0)
    steps = run(flux, model, cfg=3.0)
    torch.testing.assert_close(steps[-1][1], expected[-1][1], rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def fail(*args, **kwargs):
    raise RuntimeError("planted")


@pytest.mark.parametrize("ending", ["normal", "sampler", "model", "ours", "interrupt"])
def test_nothing_is_left_after_any_ending(flux, region, monkeypatch, ending):
    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    model, runs = region(hooked(flux.conditioning(7), hooks))
    lasting, usual = [], live_region.RegionRun.__init__
    monkeypatch.setattr(live_region.RegionRun, "__init__", lambda self, *args: (lasting.append(weakref.ref(self)), usual(self, *args))[1])
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(flux.conditioning(1), flux.conditioning(2))
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 12, 16), 0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)

    def stop(step, *others):
        if ending == "interrupt" and step == FIRST:
            comfy.model_management.interrupt_current_processing(True)
            comfy.model_management.throw_exception_if_processing_interrupted()

    def sample(guider):
        guider.sample(noise, torch.zeros_like(noise), comfy.samplers.ksampler("euler"), sigmas, callback=stop, disable_pbar=True)

    before = {name: value.clone() for name, value in flux.patcher.model.state_dict().items()}
    with monkeypatch.context() as patches:
        if ending == "sampler":
            patches.setattr(comfy.samplers.KSAMPLER, "sample", fail)
        elif ending == "model":
            patches.setattr(flux.patcher.model.diffusion_model.single_blocks[1].linear2, "forward", fail)
        elif ending == "ours":
            patches.setattr(live_region, "blended", fail)
        if ending == "normal":
            sample(guider)
        else:
            with pytest.raises((RuntimeError, comfy.model_management.InterruptProcessingException)):
                sample(guider)
    assert live_of(model).run is None and not [name for name in getattr(guider, "conds", {}) if live_region.KEY in name]
    assert not model.hook_patches and not traces(flux.patcher) and (ending == "normal") == bool(runs._runs)
    assert all(torch.equal(value, before[name]) for name, value in flux.patcher.model.state_dict().items())
    gone = weakref.ref(live_of(model)), weakref.ref(of(model)), weakref.ref(runs), *lasting
    del model, runs, guider
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


def test_a_picture_that_exists_is_looked_at_without_regions(flux, region, clip, looks):
    class Vae:
        def encode(self, pixels):
            return torch.zeros(len(pixels), 16, 12, 16)

    model, _ = region(start_percent=0.0)
    picture = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))
    arguments = dict(clip=clip, vae=Vae(), image=picture, concepts="cat", contrast="sky", noise_level=0.5, samples=2, seed=0,
                     token="mean", cross_attention=False, conditioning=flux.conditioning(5))
    ours, plain = (ConceptAttentionImage.execute(model=m, **arguments).result[0].find(None)[0] for m in (model, flux.patcher))
    assert torch.equal(ours.recordings["output"].scores, plain.recordings["output"].scores) and not looks


@pytest.mark.parametrize("name", CASES)
def test_every_family(name, golden, looks):
    case = CASES[name]
    if not case.there:
        pytest.skip("not on this host")
    small = case.model(golden(case.golden) if case.drawn is None else case.drawn())
    model, runs = ConceptRegion.execute(small.patcher, Clip(small.width, key=case.text_key), small.conditioning(7), "cat", "sky, dog", 1.0,
                                        0.45, 1.0, 0, "percentile", 0.6, 0, 0, 0.0).result
    size = case.latent((12, 16))
    steps, plain = run(small, model, small.conditioning(1), size=size), run(small, small.patcher, small.conditioning(1), size=size)
    weights = looks[0].weights
    assert weights.shape[1:] == size and 0.2 < weights.mean() < 0.8
    later = inside(small.conditioning(1), 1 - weights) + inside(small.conditioning(7), weights)
    begins_and_ends_as_it_should(steps, plain, run(small, small.patcher, small.conditioning(1), later=later, size=size))
    assert not runs.find(None)[0].notes


def test_a_clip_is_refused_before_the_first_step(qwen):
    model, _ = ConceptRegion.execute(qwen.patcher, Clip(qwen.width, key="qwen25_7b"), qwen.conditioning(7), "cat", "sky", 1.0, 0.25, 1.0, 0,
                                     "auto", 0.5, 0, 0, 0.3).result
    noise = torch.randn(1, 16, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="a clip of 3 frames.*Take Concept Region out"):
        comfy.sample.sample(model, noise, 2, 1.0, "euler", "simple", qwen.conditioning(1), qwen.conditioning(2), torch.zeros_like(noise),
                            disable_pbar=True, seed=0)


@pytest.mark.parametrize("settings, message", [
    (dict(start_percent=0.5, end_percent=0.4), "start_percent is 0.5 and end_percent is 0.4"),
    (dict(concepts=" "), "No concept was typed"),
    (dict(strength=1.5), "strength is 1.5, expected 0 to 1"),
])
def test_bad_input(region, settings, message):
    with pytest.raises(ValueError, match=message):
        region(**settings)
