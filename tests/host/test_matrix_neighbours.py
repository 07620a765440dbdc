"""Matrix: others in the chain. Whoever stands before or after keeps working, to the last bit."""

import comfy.controlnet
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_slg as slg
import pytest
import torch
from oracle import call_node, check as checked


def overridden(model, calls):
    def override(function, *args, **kwargs):
        calls.append("attention")
        return function(*args, **kwargs) * 0.9

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def replaced(model, calls):
    def replacement(args, extra):
        calls.append("block")
        out = extra["original_block"](args)
        return {"img": out["img"] * 1.1, "txt": out["txt"]}

    model = model.clone()
    model.set_model_patch_replace(replacement, "dit", "double_block", 1)
    return model


def freely_scaled(model, calls):
    def patch(h, hsp, options):
        calls.append("output")
        return h * 1.2, hsp

    model = model.clone()
    model.set_model_output_block_patch(patch)
    return model


def patched_inputs(model, calls):
    """What reference and adapter nodes do: one more text token in front, one more key behind."""
    def patch(given):
        calls.append("input")
        text = torch.cat((given["txt"][:, :1] * 0.5, given["txt"]), dim=1)
        return {**given, "txt": text, "txt_ids": torch.cat((given["txt_ids"][:, :1], given["txt_ids"]), dim=1)}

    model = model.clone()
    model.set_model_patch(patch, "post_input")
    return model


CHAINS = {
    "another attention": overridden,
    "a replaced double block": replaced,
    "FreeU-style output patches": freely_scaled,
    "SkipLayerGuidanceDiT": lambda m, calls: call_node(slg.SkipLayerGuidanceDiT, m, 3.0, 0.0, 1.0, double_layers="1", single_layers="0")[0],
    "PerturbedAttentionGuidance": lambda m, calls: call_node(pag.PerturbedAttentionGuidance, m, 3.0)[0],
    "ModelSamplingFlux": lambda m, calls: call_node(advanced.ModelSamplingFlux, m, 1.15, 0.5, 128, 96)[0],
    "all of them": lambda m, calls: replaced(overridden(call_node(advanced.ModelSamplingFlux, m, 1.15, 0.5, 128, 96)[0], calls), calls),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("chain", CHAINS)
def test_chain(flux, apply, chain, place):
    calls, counts = [], []
    build = CHAINS[chain]

    def sample(model):
        calls.clear()
        latent = flux.sample(model, cfg=3.0)
        counts.append(sorted(calls))
        return latent

    model = build(flux.patcher, calls) if place == "before" else flux.patcher
    recording = checked(apply, model, sample, flux.conditioning(1), patched=lambda m: m if place == "before" else build(m, calls))
    assert recording.scores.shape[0] == 3
    if chain in ("another attention", "a replaced double block", "all of them"):
        assert set(counts[0]) <= set(counts[1]) and counts[0], "the neighbour is called, by the plain run and by ours"


def test_normalized_attention_guidance(flux, apply):
    nag = pytest.importorskip("comfy_extras.nodes_nag", reason="this ComfyUI has no NAGuidance")
    model = call_node(nag.NAGuidance, flux.patcher, 5.0, 0.5, 1.5)[0]
    checked(apply, model, lambda m: flux.sample(m, cfg=1.0), flux.conditioning(1), compare=False)


def test_one_more_text_token_from_a_patch(flux, apply):
    checked(apply, patched_inputs(flux.patcher, []), flux.sample, flux.conditioning(1), compare=False)


class Control(comfy.controlnet.ControlBase):
    """A ControlNet that adds to the first two double blocks and to a single block."""

    def get_control(self, x, t, cond, batched_number, *args):
        generator = torch.Generator().manual_seed(0)
        tokens = -(-x.shape[-2] // 2) * -(-x.shape[-1] // 2)
        added = 0.2 * torch.randn(1, tokens, 256, generator=generator).expand(len(x), -1, -1)
        return {"input": [added, None, added], "output": [added]}

    def copy(self):
        return self


def test_controlnet(flux, check):
    positive = flux.conditioning(1, control=Control(), control_apply_to_uncond=True)
    recording = check(sample=lambda m: flux.sample(m, positive=positive, cfg=2.0), prompts=positive)
    assert not torch.equal(recording.scores, check(sample=lambda m: flux.sample(m, cfg=2.0)).scores), "the ControlNet does something"


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache"])
def test_step_caches(flux, apply, kind, place):
    def cached(model):
        return call_node(getattr(easycache, f"{kind}Node"), model, 3.0, 0.15, 0.95, False)[0]

    model = cached(flux.patcher) if place == "before" else flux.patcher
    recording = checked(apply, model, lambda m: flux.sample(m, steps=8), flux.conditioning(1),
                        patched=lambda m: m if place == "before" else cached(m),
                        notes="of 8 steps are not recorded" if kind == "EasyCache" else "")  # a LazyCache does not even call the model
    assert 1 < len(recording.sigmas) < 8, "some steps were skipped, the others recorded"


def test_two_concept_attention_nodes(flux, apply):
    first, first_runs = apply("cat")
    checked(apply, first, flux.sample, flux.conditioning(1), concepts="dog, sun", ours=1, compare=False)
    flux.sample(first)
    assert first_runs.find(None)[0].recordings["output"].concepts == ("cat",)


def compiled(model, backend: str):
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    if backend != "eager":
        return call_node(TorchCompileModel, model, backend)[0]
    model = model.clone()
    set_torch_compile_wrapper(model=model, backend="eager")
    return model


@pytest.mark.long
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name, backend, attention, blocks", [
    ("flux", "eager", "attention_sub_quad", "auto"), ("flux", "eager", "attention_pytorch", "auto"),
    ("flux", "inductor", "attention_pytorch", "auto"), ("flux2", "inductor", "attention_pytorch", "auto"),
    ("qwen", "inductor", "attention_pytorch", "auto"), ("flux", "eager", "attention_sub_quad", "all"),
    ("flux", "inductor", "attention_pytorch", "all"), ("flux2", "inductor", "attention_pytorch", "all")])
def test_torch_compile(request, apply, monkeypatch, name, backend, attention, blocks, place):
    """Compiled code stays compiled, and its picture differs from the uncompiled one's as it does without us."""
    import comfy.ldm.flux.math
    import comfy.ldm.modules.attention

    flux = request.getfixturevalue(name)
    for module in (comfy.ldm.flux.math, comfy.ldm.modules.attention):
        monkeypatch.setattr(module, "optimized_attention", getattr(comfy.ldm.modules.attention, attention))
    torch.compiler.reset()
    model = compiled(flux.patcher, backend) if place == "before" else flux.patcher
    plain_first = flux.sample(compiled(flux.patcher, backend))
    mine, runs = apply(model=model, blocks=blocks)
    mine = mine if place == "before" else compiled(mine, backend)
    for steps in (3, 5):  # the code is used again
        assert torch.equal(flux.sample(mine, steps=steps), flux.sample(compiled(flux.patcher, backend), steps=steps))
    assert torch.equal(flux.sample(mine), plain_first)
    uncompiled, expected = apply(model=flux.patcher, blocks=blocks)
    flux.sample(uncompiled)
    scores, wanted = (r.find(None)[0].recordings["output"].scores for r in (runs, expected))
    assert (scores - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    again = compiled(flux.patcher, backend)
    assert torch.equal(flux.sample(again), plain_first), "nothing of ours is left in the compiled code"
    torch.compiler.reset()


def test_a_compiled_sd3_is_refused(sd35, apply, record_property):
    record_property("refused", "SD3 compiled by TorchCompileModel, by name, before the first step")
    with pytest.raises(ValueError, match="an SD3 that is compiled.*Take TorchCompileModel out"):
        sd35.sample(apply(model=compiled(sd35.patcher, "inductor"))[0])


def test_torch_compile_with_an_attention_that_breaks_the_code(flux, apply, record_property):
    model = compiled(flux.patcher, "inductor")
    if (model.model_options.get("torch_compile_kwargs") or {}).get("options") is None:
        pytest.skip("this ComfyUI's compiled code heeds transformer_options: nothing to refuse")
    record_property("refused", "TorchCompileModel with another attention than PyTorch's, by name, before the first step")
    with pytest.raises(ValueError, match="TorchCompileModel.*--use-pytorch-cross-attention"):
        flux.sample(apply(model=model)[0])
