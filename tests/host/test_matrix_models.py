"""Matrix: models. Whatever holds the weights, the maps are those of a plain float32 model with the same values."""

import comfy.sd
import comfy.supported_models
import comfy.utils
import pytest
import torch
from conftest import SmallFlux
from packed import Packed

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def dev(golden):
    return golden("flux1_dev_like")


def scores_of(flux, apply, model=None, **settings):
    patched, runs = apply(model=model or flux.patcher)
    flux.sample(patched, **settings)
    return runs.find(None)[0].recordings["output"].scores


def close(scores, expected, tolerance) -> None:
    error = (scores - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize("name", ["flux", "schnell"])
def test_dev_and_schnell(request, apply, check, name):
    model = request.getfixturevalue(name)
    check(model.patcher, model.sample, model.conditioning(1))


def test_fill_with_extra_channels(dev, check):
    fill = SmallFlux(dev, in_channels=96)
    positive = fill.conditioning(1, concat_latent_image=torch.randn(1, 16, 12, 16), concat_mask=torch.ones(1, 1, 96, 128))
    check(fill.patcher, lambda m: fill.sample(m, positive=positive, cfg=2.0), positive)


@pytest.mark.parametrize("method", ["offset", "index", "uxo", "index_timestep_zero"])
@pytest.mark.parametrize("count", [1, 2])
def test_kontext_references(flux, check, count, method):
    references = [torch.randn(1, 16, 12, 16, generator=torch.Generator().manual_seed(i))[..., :12 - 4 * i, :] for i in range(count)]
    positive = flux.conditioning(1, reference_latents=references, reference_latents_method=method)
    if method == "index_timestep_zero":
        try:
            flux.sample(flux.patcher, positive=positive)
        except RuntimeError as error:
            pytest.skip(f"this ComfyUI cannot sample Flux.1 with it: {str(error)[:60]}")
    recording = check(sample=lambda m: flux.sample(m, positive=positive, cfg=2.0), prompts=positive)
    assert recording.scores.shape[-2:] == (6, 8), "the picture's own tokens, not the references'"


@pytest.mark.parametrize("stream", ["txt", "img"])
def test_lora(dev, flux, apply, check, stream):
    name, generator = f"double_blocks.1.{stream}_attn.qkv", torch.Generator().manual_seed(7)
    up, down = (torch.randn(*shape, generator=generator) * 0.05 for shape in ((768, 4), (4, 256)))
    lora = {f"diffusion_model.{name}.lora_up.weight": up, f"diffusion_model.{name}.lora_down.weight": down}
    with_lora, _ = comfy.sd.load_lora_for_models(flux.patcher, None, lora, 1.0, 0.0)
    before = check(with_lora).scores
    after_ours = check(patched=lambda m: comfy.sd.load_lora_for_models(m, None, lora, 1.0, 0.0)[0])
    assert torch.equal(before, after_ours.scores)

    def merge(weights, settings):
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + up @ down
        return weights

    merged = SmallFlux(dev, edit=merge)
    close(before, scores_of(merged, apply), 1e-4)
    assert (before - scores_of(flux, apply)).abs().max() > 0.1, "the LoRA does something"


def test_fp8_weights(dev, apply, check):
    flux = SmallFlux(dev, dtype=FP8, computed=torch.float32)
    assert flux.patcher.model.diffusion_model.double_blocks[0].txt_attn.qkv.weight.dtype == FP8
    scores = check(flux.patcher, flux.sample).scores
    all_rounded = SmallFlux(dev, edit=lambda weights, settings: {name: w.to(FP8).float() for name, w in weights.items()})
    close(scores, scores_of(all_rounded, apply), 1e-4)


def test_scaled_fp8_weights(dev, apply, check):
    plain = {}

    def edit(weights, settings):
        scaled = {}
        for name, w in weights.items():
            if w.ndim == 2:
                scale = w.abs().max() / 448
                scaled[name], plain[name] = (w / scale).to(FP8), (w / scale).to(FP8).float() * scale
                scaled[name.replace(".weight", ".scale_weight")] = scale
            else:
                scaled[name] = plain[name] = w
        if hasattr(comfy.utils, "convert_old_quants"):  # newer hosts
            scaled, _ = comfy.utils.convert_old_quants({**scaled, "scaled_fp8": torch.zeros(2, dtype=FP8)})
            settings.quant_config = comfy.utils.detect_layer_quantization(scaled, "")
        else:
            settings.scaled_fp8 = FP8
        return scaled

    flux = SmallFlux(dev, computed=torch.float32, edit=edit)
    scores = check(flux.patcher, flux.sample).scores
    close(scores, scores_of(SmallFlux(dev, edit=lambda weights, settings: plain), apply), 2e-3)


def test_weights_that_can_only_be_read_by_calling(dev, flux, apply, check):
    def edit(weights, settings):
        settings.custom_operations = Packed
        return weights

    packed = SmallFlux(dev, edit=edit)
    check(packed.patcher, packed.sample, exactly=scores_of(flux, apply))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.15), (torch.float16, 0.01)], ids=["bf16", "fp16"])
def test_half_precision(dev, flux, apply, check, monkeypatch, dtype, tolerance):
    import oracle

    half = SmallFlux(dev, dtype=dtype)
    monkeypatch.setattr(oracle.Oracle, "tolerance", tolerance)
    scores = check(half.patcher, lambda m: half.sample(m, steps=1), half.conditioning(1)).scores
    told = float(1000 * torch.tensor(3.5, dtype=dtype)) / 1000  # what 3.5 is to such a model, which multiplies before it embeds
    close(scores, scores_of(flux, apply, steps=1, positive=flux.conditioning(1, guidance=told)), tolerance)


def test_another_architecture_is_refused_by_name(apply, record_property):
    from test_bad_input import test_a_model_of_another_family_is_named

    record_property("refused", "another architecture (SD 1.5), by name, before sampling")
    test_a_model_of_another_family_is_named(apply)
