"""Capture inside the real host: golden values through the nodes, pictures unchanged, good neighbours, nothing left behind."""

import gc
import weakref

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from concept_saliency.nodes import capture
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from oracle import traces


def newest(runs):
    return runs.find(None)[0]


CASES = {
    "plain": {},
    "batch of two": dict(batch=2),
    "13 x 8 latent": dict(size=(13, 8)),
    "cfg 4": dict(cfg=4.0),
    "cfg 4, batch of two, second order": dict(cfg=4.0, batch=2, sampler="heun"),
    "ancestral": dict(sampler="euler_ancestral"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_picture_does_not_change_and_maps_have_the_right_shape(flux, apply, case):
    settings = CASES[case]
    model, runs = apply(cross_attention=True)
    plain, with_pack = flux.sample(flux.patcher, **settings), flux.sample(model, **settings)
    assert torch.equal(plain, with_pack)
    height, width = settings.get("size", (12, 16))
    for recording in newest(runs).recordings.values():
        steps, layers, batch, concepts, h, w = recording.scores.shape
        assert (layers, batch, concepts, h, w) == (4, settings.get("batch", 1), 3, (height + 1) // 2, (width + 1) // 2)
        assert steps >= 3 and recording.image_size == (height * 8, width * 8)
        assert torch.isfinite(recording.scores).all() and recording.scores.std() > 0
    assert not traces(flux.patcher)


def test_rows_of_a_batch_are_recorded_apart_and_the_negative_prompt_not_at_all(flux, apply):
    one, one_runs = apply()
    two, two_runs = apply()
    guided, guided_runs = apply()
    flux.sample(one, steps=1)
    flux.sample(two, steps=1, batch=2)
    flux.sample(guided, steps=1, cfg=4.0, negative=flux.conditioning(5, tokens=14))
    alone, both, cfg = (newest(r).recordings["output"].scores for r in (one_runs, two_runs, guided_runs))
    torch.testing.assert_close(both[:, :, :1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[:, :, 1:], alone, rtol=1e-2)
    torch.testing.assert_close(cfg, alone, rtol=1e-4, atol=1e-4)


def test_other_patches_are_still_called_before_and_after_ours(flux, apply):
    calls = []

    def replacement(args, extra):
        calls.append("block")
        return extra["original_block"](args)

    def override(function, *args, **kwargs):
        calls.append("attention")
        return function(*args, **kwargs)

    def neighbours(model):
        model = model.clone()
        model.set_model_patch_replace(replacement, "dit", "double_block", 1)
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        return model

    plain = flux.sample(neighbours(flux.patcher))
    expected = calls.copy()
    for model, runs in ((lambda m, r: (neighbours(m), r))(*apply()), apply(model=neighbours(flux.patcher))):
        calls.clear()
        assert torch.equal(flux.sample(model), plain)
        assert calls == expected and calls.count("block") == 3 and "attention" in calls
        assert newest(runs).recordings["output"].scores.shape[0] == 3


def test_two_nodes_on_one_model_record_apart(flux, apply):
    first, first_runs = apply("cat")
    both, second_runs = apply("dog, sun", model=first)
    assert torch.equal(flux.sample(both), flux.sample(flux.patcher))
    assert newest(first_runs).recordings["output"].concepts == ("cat",)
    assert newest(second_runs).recordings["output"].concepts == ("dog", "sun")


def test_two_samplers_on_one_model_are_told_apart(flux, apply):
    model, runs = apply()
    first, second = flux.sample(model, seed=1), flux.sample(model, seed=2)
    assert runs.find(first)[0] is not runs.find(second)[0]
    assert runs.find(second)[0] is newest(runs) and runs.find(first)[1] == []
    assert "newest" in runs.find(torch.zeros_like(first))[1][0]


def test_an_area_prompt_is_passed_by_and_said_so(flux, apply):
    model, runs = apply()
    positive = flux.conditioning(1) + flux.conditioning(3, area=(6, 8, 0, 0), strength=1.0)
    assert torch.equal(flux.sample(model, positive=positive), flux.sample(flux.patcher, positive=positive))
    assert any("area" in note for note in newest(runs).notes) and newest(runs).recordings


def test_a_window_without_steps_says_so(flux, apply):
    model, runs = apply(start_percent=0.98, end_percent=0.99)
    flux.sample(model)
    with pytest.raises(ValueError, match="nothing was recorded.*Widen"):
        ConceptSaliency.execute(runs, "auto", 0.0, 1.0, "output", 0.0)


def fail(*args, **kwargs):
    raise RuntimeError("planted")


@pytest.mark.parametrize("ending", ["normal", "sampler", "model", "ours", "interrupt"])
def test_nothing_is_left_after_any_ending(flux, clip, monkeypatch, ending):
    model, runs = ConceptAttentionApply.execute(flux.patcher, clip, "cat", "", 0.0, 1.0, "mean", False).result
    block = flux.patcher.model.diffusion_model.double_blocks[2]
    if ending == "normal":
        flux.sample(model)
    elif ending == "interrupt":
        def stop(step, *others):  # as the server's progress hook does when the user has pressed cancel
            comfy.model_management.interrupt_current_processing(True)
            comfy.model_management.throw_exception_if_processing_interrupted()

        with pytest.raises(comfy.model_management.InterruptProcessingException):
            flux.sample(model, callback=stop)
    else:
        with monkeypatch.context() as patches:
            if ending == "sampler":
                patches.setattr(comfy.samplers.KSAMPLER, "sample", fail)
            elif ending == "model":
                patches.setattr(block.img_mlp, "forward", fail)
            else:
                patches.setattr(capture.ConceptStream, "watch", fail)
            with pytest.raises(RuntimeError, match="planted"):
                flux.sample(model)
    assert not traces(flux.patcher)
    ours = model.wrappers["outer_sample"][capture.KEY][0].__self__
    assert ours.run is None and (ending == "normal") == bool(runs._runs)
    gone = weakref.ref(ours), weakref.ref(runs)
    del model, runs, ours
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    streams = [o for o in gc.get_objects() if isinstance(o, (capture.ConceptStream, capture.ActiveRun))]
    assert not streams
    again, runs = ConceptAttentionApply.execute(flux.patcher, clip, "cat", "", 0.0, 1.0, "mean", False).result
    assert torch.equal(flux.sample(again), flux.sample(flux.patcher)) and newest(runs).recordings
