"""What one cell of the matrix must show: the same picture with and without the pack, and maps that a second, simpler way of
computing them gives too.

The second way: every positive prompt alone, known by its text, straight after each call of the model.
"""

from __future__ import annotations

import comfy.ldm.flux.math
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.stream import ConceptStream
from concept_saliency.nodes import capture


def check(apply, model, sample, prompts, concepts="cat, dog", patched=lambda model: model, exactly=None, notes="",
          ours=0, compare=True, blocks="auto"):
    """Samples with and without the pack and compares; returns the newest recording, None if there is none.

    sample: MODEL -> latent or list of them. prompts: the positive CONDITIONING. patched: what stands in the chain
    after Concept Attention. exactly: scores that must come out bit by bit. notes: what the run must say. ours: Concept
    Attention nodes that stand on the model already.
    compare: whether the second way knows what else is in the chain. blocks: how far the concepts go.
    """
    plain = sample(patched(model))
    oracle = Oracle(prompts)
    mine, runs = apply(concepts, model=oracle.attached(model) if compare else model, blocks=blocks)
    oracle.vectors, oracle.singles = of(mine).inputs.vectors, of(mine).singles
    sampled = sample(patched(mine))
    for a, b in zip(as_list(plain), as_list(sampled), strict=True):
        assert torch.equal(a, b), f"the picture has changed by up to {(a - b).abs().max():.2e}"
    assert len([t for t in traces(model) if "wrapper" not in t]) == 0 and len(of_all(model)) == ours, traces(model)
    run = runs.find(as_list(sampled)[-1])[0]
    assert notes in " ".join(run.notes) if notes else not run.notes, run.notes
    recording = run.recordings.get("output")
    if recording is not None and compare:
        expected = oracle.scores(recording.sigmas)
        assert recording.scores.shape[:4] == expected.shape[:4]
        error = (recording.scores.flatten(4) - expected).abs().max() / expected.abs().max()
        assert error <= oracle.tolerance, f"the maps are wrong: relative error {error:.2e}"
        if exactly is not None:
            assert torch.equal(recording.scores, exactly), "the maps differ from the plain run's"
    return recording


class Oracle:
    """Computes, beside a sampling run, what should be recorded."""

    tolerance = 5e-4

    def __init__(self, prompts):
        self.texts = [text for text, _ in prompts]
        self.vectors, self.singles = None, 0
        self.seen: dict[tuple[float, int, int], torch.Tensor] = {}  # sigma, prompt, picture -> L x C x N

    def attached(self, model):
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "oracle", self.new_run)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "oracle", self.wrapper)
        return model

    def new_run(self, executor, *args, **kwargs):
        self.seen.clear()
        return executor(*args, **kwargs)

    def wrapper(self, executor, x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs):
        result = executor(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)
        batch, sigma = x.shape[0], float(transformer_options["sigmas"][0])
        for number, text in enumerate(self.texts):
            rows = [r for r in range(batch) if torch.equal(context[r, :text.shape[1]], text[0].to(context))]
            for picture, row in enumerate(rows):
                if (sigma, number, picture) not in self.seen and x.shape[-2:] == self.size(x):
                    inputs = [one(value, row, batch) for value in (x, timestep, context, y, guidance, ref_latents, control)]
                    options = {**transformer_options, "wrappers": {}, "cond_or_uncond": [0]}
                    more = {name: one(value, row, batch) for name, value in kwargs.items()}
                    self.seen[sigma, number, picture] = self.alone(executor.class_obj, inputs, options, more)
        return result

    def size(self, x):
        self.full = getattr(self, "full", x.shape[-2:])
        return self.full

    def alone(self, transformer, inputs, options, more) -> torch.Tensor:
        x, timestep, context, _, guidance, *_ = inputs
        looks, usual = [], comfy.ldm.flux.math.optimized_attention

        def spy(q, k, v, *args, **kwargs):
            out = usual(q, k, v, *args, **kwargs)
            looks.append((k.clone(), v.clone(), out.clone()))
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comfy.ldm.flux.math, "optimized_attention", spy)
            transformer.forward(*inputs, transformer_options=options, **more)
        stream = ConceptStream(comfyui, transformer, self.vectors.to(context), timestep, guidance, singles=self.singles)
        first, count = context.shape[1], -(-x.shape[-2] // 2) * -(-x.shape[-1] // 2)
        for block, (k, v, out) in zip(comfyui.blocks(transformer, self.singles).values(), looks):
            image = slice(k.shape[2] - (out.shape[1] - first), None)
            stream.watch(block, k[:, :, image][:, :, :count], v[:, :, image][:, :, :count], out[:, first:first + count], None)
        return torch.cat(stream.scores["output"])

    def scores(self, sigmas) -> torch.Tensor:
        """S x L x B x C x N: the mean over the prompts that were there at each noise level."""
        steps = []
        for sigma in sigmas:
            pictures = sorted({b for s, _, b in self.seen if s == sigma})
            steps.append(torch.stack([torch.stack([v for (s, _, b), v in self.seen.items() if s == sigma and b == p]).float().mean(0)
                                      for p in pictures], dim=1))
        return torch.stack(steps)


def one(value, row: int, batch: int):
    """One row of whatever the transformer is called with."""
    if isinstance(value, torch.Tensor):
        return value[row:row + 1] if value.ndim and value.shape[0] == batch else value
    if isinstance(value, list):
        return [one(v, row, batch) for v in value]
    if isinstance(value, dict):
        return {k: one(v, row, batch) for k, v in value.items()}
    return value


def of(model) -> capture.Capture:
    """The Capture that was put on a MODEL last."""
    return of_all(model)[-1]


def of_all(model) -> list[capture.Capture]:
    """Every Capture on a MODEL."""
    return [wrapper.__self__ for wrapper in model.wrappers.get("outer_sample", {}).get(capture.KEY, [])]


def as_list(latents) -> list[torch.Tensor]:
    return latents if isinstance(latents, list) else [latents]


def traces(model) -> list[str]:
    """Whatever of ours can be found on a model that was not patched."""
    found = [f"wrapper {kind}" for kind, keyed in model.wrappers.items() if capture.KEY in keyed]
    options = model.model_options["transformer_options"]
    override = options.get("optimized_attention_override")
    dit = options.get("patches_replace", {}).get("dit", {}).values()
    found += [f"{value}" for value in (override, *dit) if "concept_saliency" in getattr(value, "__module__", "")]
    for name, module in model.model.diffusion_model.named_modules():
        found += [f"{name}.{key}" for key in vars(module) if key == "forward"]
        found += [f"{name} hook" for hooks in (module._forward_hooks, module._forward_pre_hooks) if hooks]
    return found


def call_node(kind, *args, **kwargs):
    """A node of ComfyUI's, of either generation -> its outputs."""
    if hasattr(kind, "define_schema"):
        return kind.execute(*args, **kwargs).result
    return getattr(kind(), kind.FUNCTION)(*args, **kwargs)


def custom_sample(model, guider=None, positive=None, sampler="euler", scheduler="simple", seed=5, sigmas=None, latent=None):
    """SamplerCustomAdvanced and the nodes before it -> the latent."""
    import comfy_extras.nodes_custom_sampler as custom

    [guider] = call_node(custom.BasicGuider, model, positive) if guider is None else [guider]
    [sigmas] = call_node(custom.BasicScheduler, model, scheduler, 3, 1.0) if sigmas is None else [sigmas]
    [noise], [kind] = call_node(custom.RandomNoise, seed), call_node(custom.KSamplerSelect, sampler)
    latent = {"samples": torch.zeros(1, 16, 12, 16)} if latent is None else latent
    return call_node(custom.SamplerCustomAdvanced, noise, guider, kind, sigmas, latent)[0]["samples"]
