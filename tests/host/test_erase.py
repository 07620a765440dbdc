"""Erase under Mask: every block's attention is the one in which the mask sees its surroundings alone; all else is the host's inpainting."""

import gc
import logging
import weakref

import comfy.sample
import pytest
import test_families
import test_video
import torch
from comfy.patcher_extension import WrappersMP
from concept_saliency.demo import pipeline
from concept_saliency.nodes import demo_model, eraser
from concept_saliency.nodes.erase_under_mask import ConceptErase
from oracle import of, traces
from test_matrix_neighbours import compiled, overridden

# HunyuanVideo 1.5 takes no latent with a mask in ComfyUI, and a Wan of a picture wants one
CASES = {**test_families.CASES, **{name: test_video.CASES[name] for name in ("hunyuan video", "wan", "wan 2.2")}}
SIZE = (12, 16)


def hole(size=SIZE, rows=(4, 10), columns=(2, 8)):
    """A noise mask 1 x 1 x h x w."""
    mask = torch.zeros(1, 1, *size)
    mask[..., slice(*rows), slice(*columns)] = 1
    return mask


def latent_of(small, batch=1, size=SIZE):
    return torch.randn(batch, small.channels, *small.frames, *size, generator=torch.Generator().manual_seed(9))


def run(small, model, mask, batch=1, size=SIZE, cfg=1.0, steps=2, positive=None, latent=None):
    latent = latent_of(small, batch, size) if latent is None else latent
    return comfy.sample.sample(model, comfy.sample.prepare_noise(latent, 0), steps, cfg, "euler", "simple",
                               positive or small.conditioning(1), small.conditioning(2), latent, noise_mask=mask, disable_pbar=True, seed=0)


def erasing(model):
    return ConceptErase.execute(model).result[0]


def eraser_of(model) -> eraser.Eraser:
    [wrapper] = model.get_wrappers(WrappersMP.SAMPLER_SAMPLE, eraser.KEY)
    return wrapper.__self__


@pytest.fixture
def met(monkeypatch):
    """Every attention that is met, computed once more with a mask over all queries and keys -> the shapes of what was met."""
    usual, seen = eraser.look_outside, []

    def look(out, q, k, v, holes, first, mask=None, scale=None):
        given = usual(out, q, k, v, holes, first, mask, scale)
        allowed = torch.ones(len(q), 1, q.shape[2], k.shape[2], dtype=torch.bool)
        for row in range(len(q)):
            inside = (first % k.shape[2] + holes[row % len(holes)].inside).tolist()
            for query in inside:
                allowed[row, 0, query, inside] = False
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
        if mask is not None:
            bias = bias + (torch.zeros(mask.shape).masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else mask)
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=scale)
        dense = dense if out.ndim == 4 else dense.transpose(1, 2).flatten(2)
        torch.testing.assert_close(given, dense, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(given, out, rtol=1e-3, atol=1e-4)
        seen.append((len(q), first, k.shape[2]))
        return given

    monkeypatch.setattr(eraser, "look_outside", look)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_every_block_of_every_family(name, golden, met):
    case = CASES[name]
    if not case.there:
        pytest.skip("not on this host")
    made = golden(case.golden) if getattr(case, "drawn", True) is None else case.drawn() if hasattr(case, "drawn") else case.model.drawn()
    small = case.model(made)
    small.frames = small.frames and (1,)
    size = case.latent(SIZE) if hasattr(case, "latent") else SIZE
    scale = size[0] // SIZE[0]
    mask, latent = hole(size, (4 * scale, 10 * scale), (2 * scale, 8 * scale)), latent_of(small, size=size)
    model = erasing(small.patcher)
    watch = eraser_of(model).watch
    plain, erased = run(small, small.patcher, mask, latent=latent), run(small, model, mask, latent=latent)
    blocks = watch.family.blocks(small.patcher.model.diffusion_model, None)
    assert len(met) == 2 * len(blocks), "each in both steps"
    anew = mask.flatten()[None] > 0
    differs = (plain - erased).abs().amax(dim=1).reshape(1, -1)
    assert not differs[~anew].any() and (differs[anew] > 0).float().mean() > 0.9
    assert not traces(small.patcher)


def test_batch_with_a_mask_each_and_guidance(flux, met):
    masks = torch.cat((hole(), hole(rows=(0, 4), columns=(6, 16))))
    both = run(flux, erasing(flux.patcher), masks, batch=2, cfg=3.0)
    assert {rows for rows, _, _ in met} == {4}, "positive and negative prompts in one call"
    one_by_one = [run(flux, erasing(flux.patcher), masks[:1], batch=1, cfg=3.0)]
    assert torch.allclose(both[:1], one_by_one[0], atol=1e-4)


@pytest.mark.parametrize("size", [(13, 9), (9, 20)])
def test_odd_sides(flux, met, size):
    mask = torch.zeros(1, 1, *size)
    mask[..., -3:, -2:] = 1
    run(flux, erasing(flux.patcher), mask, size=size)
    assert len(met) == 2 * 6


def test_with_concept_attention_before_and_after(flux, apply, met):
    alone, found = run(flux, erasing(flux.patcher), hole()), []
    first, runs = apply()
    assert torch.equal(run(flux, erasing(first), hole()), alone)
    found.append(runs.find(None)[0].recordings["output"].scores)
    after, runs = apply(model=erasing(flux.patcher))
    assert torch.equal(run(flux, after, hole()), alone)
    found.append(runs.find(None)[0].recordings["output"].scores)
    plain, runs = apply()
    run(flux, plain, hole())
    for scores in found:
        assert scores.shape[1] == 4 and not torch.equal(scores, runs.find(None)[0].recordings["output"].scores)
    assert of(after).run is None


def test_another_attention_in_the_chain_keeps_working(flux):
    calls, plain = [], []
    run(flux, overridden(flux.patcher, plain), hole())
    scaled = run(flux, erasing(overridden(flux.patcher, calls)), hole())
    assert calls == plain and calls and not torch.equal(scaled, run(flux, erasing(flux.patcher), hole()))


def test_two_of_them_are_one(flux):
    twice = erasing(erasing(flux.patcher))
    assert torch.equal(run(flux, twice, hole()), run(flux, erasing(flux.patcher), hole())) and eraser_of(twice)


@pytest.mark.parametrize("ending", ["normal", "failure"])
def test_nothing_is_left(flux, ending, monkeypatch):
    model = erasing(flux.patcher)
    held = eraser_of(model)
    gone = weakref.ref(held)
    if ending == "failure":
        monkeypatch.setattr(eraser, "look_outside", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(flux, model, hole())
    else:
        run(flux, model, hole())
    assert held.holes == {} and held.sides == () and not traces(flux.patcher)
    del model, held
    gc.collect()
    assert gone() is None


def test_an_empty_mask_changes_nothing_and_says_so(flux, caplog):
    with caplog.at_level(logging.WARNING):
        erased = run(flux, erasing(flux.patcher), torch.zeros(1, 1, *SIZE))
    assert torch.equal(erased, run(flux, flux.patcher, torch.zeros(1, 1, *SIZE))) and "mask is empty" in caplog.text


def test_a_model_whose_attention_is_never_met_says_so(flux, caplog):
    def replacement(args, extra):
        return {name: args[name] for name in ("img", "txt") if name in args}

    model = erasing(flux.patcher)
    with caplog.at_level(logging.WARNING):
        run(flux, model, hole())
        assert not caplog.text and eraser_of(model).met == 0
        for kind, count in (("double_block", 4), ("single_block", 2)):
            for number in range(count):
                model.set_model_patch_replace(replacement, "dit", kind, number)
        run(flux, model, hole())
    assert "nothing was erased, only painted anew" in caplog.text


def area(flux):
    return flux.conditioning(1, area=(6, 8, 0, 0), strength=1.0)


@pytest.mark.parametrize("mask, prompts, message", [
    (None, None, "a latent without a mask.*Put Set Latent Noise Mask"),
    (torch.ones(1, 1, *SIZE), None, "covers the whole picture.*invert"),
    (hole(), area, "a prompt for an area.*Take a masked prompt"),
])
def test_bad_input(flux, mask, prompts, message):
    model = erasing(flux.patcher)
    with pytest.raises(ValueError, match=message):
        run(flux, model, mask, positive=prompts and prompts(flux))
    assert eraser_of(model).holes == {}


def test_a_clip_is_refused(qwen):
    latent = torch.zeros(1, 16, 3, 12, 16)
    with pytest.raises(ValueError, match="a clip of 3 frames.*Take Erase under Mask out"):
        run(qwen, erasing(qwen.patcher), hole(), latent=latent)


def test_a_model_of_no_family_is_refused(flux):
    model = flux.patcher.clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Linear"):
        erasing(model)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_torch_compile(flux, monkeypatch, backend):
    """Compiled once without, then with: the code without is not taken for the code with, nor the other way round."""
    import comfy.ldm.flux.math
    import comfy.ldm.modules.attention

    for module in (comfy.ldm.flux.math, comfy.ldm.modules.attention):
        monkeypatch.setattr(module, "optimized_attention", comfy.ldm.modules.attention.attention_pytorch)
    torch.compiler.reset()
    plain = run(flux, compiled(flux.patcher, backend), hole())
    erased = run(flux, compiled(erasing(flux.patcher), backend), hole())
    torch.testing.assert_close(erased, run(flux, erasing(flux.patcher), hole()), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(erased, plain, rtol=1e-2, atol=1e-2)
    elsewhere = hole(rows=(0, 4))
    torch.testing.assert_close(run(flux, compiled(erasing(flux.patcher), backend), elsewhere),
                               run(flux, erasing(flux.patcher), elsewhere), rtol=1e-3, atol=1e-3)
    assert torch.equal(run(flux, compiled(flux.patcher, backend), hole()), plain)
    torch.compiler.reset()


@torch.no_grad()
def test_the_demo_model_erases_as_it_does_without_comfyui(monkeypatch):
    monkeypatch.setattr(pipeline, "load_codec", lambda file: None)  # the codec is the VAE's own, and without ComfyUI diffusers'
    monkeypatch.setattr(pipeline, "decode", lambda codec, latents: latents)
    latents = torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    inside = torch.zeros(1, 32, 32, dtype=torch.bool)
    inside[:, 8:20, 4:16] = True
    expected = pipeline.TinyFlux().inpaint(latents, inside, [5], 4, erase=True)
    model, clip = demo_model.load_model(), demo_model.load_clip()
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    given = comfy.sample.sample(erasing(model), noise, 4, 1.0, "euler", "simple", prompt, prompt, model.model.process_latent_out(latents),
                                noise_mask=inside[:, None].float(), disable_pbar=True, seed=0)
    torch.testing.assert_close(model.model.process_latent_in(given), expected, atol=1e-3, rtol=1e-3)
