"""Matrix: samplers. Each run is recorded once per noise level and found again by the latent it made."""

import comfy_extras.nodes_rebatch as rebatch
import nodes
import pytest
import torch
from oracle import call_node, custom_sample


def empty(batch=1) -> dict:
    return {"samples": torch.zeros(batch, 16, 12, 16)}


@pytest.fixture
def prompts(flux):
    return flux.conditioning(1), flux.conditioning(2)


def ksampler(model, prompts, latent=None, seed=3, steps=4, sampler="euler", denoise=1.0):
    return nodes.KSampler().sample(model, seed, steps, 2.0, sampler, "simple", *prompts, latent or empty(), denoise)[0]["samples"]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_2m", "euler_ancestral", "dpmpp_sde", "uni_pc", "lcm", "ddim"])
def test_ksampler(check, prompts, sampler):
    recording = check(sample=lambda m: ksampler(m, prompts, sampler=sampler), prompts=prompts[0])
    assert len(recording.sigmas) >= 4 and list(recording.sigmas) == sorted(set(recording.sigmas), reverse=True)


def test_denoise_below_one(check, prompts):
    recording = check(sample=lambda m: ksampler(m, prompts, {"samples": torch.randn(1, 16, 12, 16, generator=torch.manual_seed(0))},
                                                denoise=0.5), prompts=prompts[0])
    assert max(recording.sigmas) < 0.8 and recording.progress[0] == 0


def test_a_noise_mask(check, prompts):
    mask = torch.zeros(1, 1, 96, 128)
    mask[..., 64:] = 1
    check(sample=lambda m: ksampler(m, prompts, {**empty(), "noise_mask": mask}), prompts=prompts[0])


def test_ksampler_advanced_in_two_halves(check, prompts):
    def sample(model):
        advanced = nodes.KSamplerAdvanced().sample
        first = advanced(model, "enable", 3, 4, 2.0, "euler", "simple", *prompts, empty(), 0, 2, "enable")[0]
        second = advanced(model, "disable", 3, 4, 2.0, "euler", "simple", *prompts, first, 2, 10000, "disable")[0]
        return [first["samples"], second["samples"]]

    recording = check(sample=sample, prompts=prompts[0])
    assert len(recording.sigmas) == 2, "the second half's own steps"


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_sampler_custom_advanced(check, prompts, sampler):
    check(sample=lambda m: custom_sample(m, positive=prompts[0], sampler=sampler), prompts=prompts[0])


def test_sigmas_that_rise(check, prompts):
    """Unsampling: from a picture back to noise."""
    rising = torch.tensor([0.05, 0.3, 0.6, 0.9])
    recording = check(sample=lambda m: custom_sample(m, positive=prompts[0], sigmas=rising), prompts=prompts[0])
    assert list(recording.sigmas) == sorted(recording.sigmas) and recording.progress[0] == 0


def test_two_samplers_on_one_patched_model(flux, apply, prompts):
    model, runs = apply()
    first, second = (ksampler(model, prompts, seed=s) for s in (1, 2))
    for latent in (first, second):
        run, warnings = runs.find(latent)
        assert run.fingerprint.matches(type(run.fingerprint).of(latent)) and not warnings
    assert not torch.equal(*(runs.find(x)[0].recordings["output"].scores for x in (first, second)))


def test_the_same_graph_again_with_another_seed(check, prompts):
    scores = [check(sample=lambda m, s=s: ksampler(m, prompts, seed=s), prompts=prompts[0]).scores for s in (1, 2, 1)]
    assert torch.equal(scores[0], scores[2]) and not torch.equal(scores[0], scores[1])


def test_batches_from_rebatch_latents(check, prompts):
    kind = getattr(rebatch, "LatentRebatch", None)
    [parts] = call_node(kind, [empty(3)], [2])
    assert [len(p["samples"]) for p in parts] == [2, 1]
    recording = check(sample=lambda m: [ksampler(m, prompts, dict(p)) for p in parts], prompts=prompts[0])
    assert recording.scores.shape[2] == 1, "the newest part's"


def test_latents_of_a_batch_picked_out_afterwards(flux, apply):
    model, runs = apply()
    latents = flux.sample(model, batch=2)
    _, warnings = runs.find(latents[1:])
    assert "newest recording is shown" in warnings[0]
