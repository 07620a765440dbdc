"""Matrix: memory and endings. Where the weights lie does not matter, and nothing of ours outlives its run."""

import gc
import weakref

import comfy.model_management as management
import pytest
import torch
from concept_saliency.nodes import capture
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from conftest import SmallFlux
from oracle import of


@pytest.fixture
def plain(flux, apply):
    model, runs = apply()
    flux.sample(model)
    return runs.find(None)[0].recordings["output"].scores


@pytest.mark.parametrize("budget", [0.1, 2**20], ids=["--novram", "--lowvram"])
def test_weights_that_are_cast_as_they_are_needed(golden, monkeypatch, check, plain, budget):
    """What those options come to: the host's own loader, with a budget of device memory that is too small."""
    small = SmallFlux(golden("flux1_dev_like"))
    left_out, usual = [], type(small.patcher).load

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False, **kwargs):
        result = usual(self, device_to, budget, force_patch_weights, False, **kwargs)
        left_out.append(sum(getattr(m, "comfy_cast_weights", False) for m in self.model.modules()))
        return result

    management.unload_all_models()
    monkeypatch.setattr(type(small.patcher), "load", load)
    check(small.patcher, small.sample, exactly=plain)
    assert left_out and max(left_out) > 0, "no weight was left out of the device"


def test_unloaded_and_loaded_again_between_runs(flux, check, plain):
    def sample(model):
        management.unload_all_models()
        return flux.sample(model)

    check(sample=sample, exactly=plain)
    check(sample=sample, exactly=plain)


def test_weights_moved_between_runs(flux, apply, plain):
    model, runs = apply()
    flux.sample(model)
    flux.patcher.detach()
    flux.patcher.model.to("cpu")
    flux.sample(model)
    assert torch.equal(runs.find(None)[0].recordings["output"].scores, plain)


def test_recordings_kept_are_bounded_and_lie_in_host_memory(flux, apply):
    model, runs = apply()
    for seed in range(8):
        flux.sample(model, seed=seed, steps=1)
    assert len(runs._runs) == 4
    assert {r.recordings["output"].scores.device.type for r in runs._runs} == {"cpu"}


def test_nothing_is_found_after_the_graph_is_gone(flux, clip):
    model, runs = ConceptAttentionApply.execute(flux.patcher, clip, "cat", "sky", 0.0, 1.0, "mean", True).result
    flux.sample(model)
    recording = runs.find(None)[0].recordings["output"]
    gone = [weakref.ref(x) for x in (of(model), of(model).inputs.vectors, runs, recording, recording.scores)]
    del model, runs, recording
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    assert not [o for o in gc.get_objects() if isinstance(o, (capture.ConceptStream, capture.ActiveRun, capture.Call))]


def test_a_run_that_failed_leaves_the_former_recording_and_takes_a_new_one(flux, apply, monkeypatch):
    model, runs = apply()
    first = flux.sample(model, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(flux.patcher.model.diffusion_model.single_blocks[0], "forward", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flux.sample(model, seed=2)
    assert len(runs._runs) == 1 and not runs.find(first)[1]
    assert not runs.find(flux.sample(model, seed=2))[1]
