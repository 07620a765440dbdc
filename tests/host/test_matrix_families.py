"""Matrix: every family but Flux.1. Whatever holds the weights, pictures stay, and the maps are those of a plain float32 model."""

import sys

import comfy.ldm.flux.model
import comfy.model_management
import comfy.ops
import comfy.supported_models
import pytest
import torch
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from conftest import Clip
from oracle import traces
from packed import Packed
from small_models import (
    SmallChroma,
    SmallFlux2,
    SmallHunyuanImage,
    SmallHunyuanVideo,
    SmallHunyuanVideo15,
    SmallKrea2,
    SmallLongCat,
    SmallLumina2,
    SmallOvis,
    SmallQwen,
    SmallRadiance,
    SmallSD3,
    SmallWan,
    SmallWan22,
    SmallZImage,
)
from test_matrix_neighbours import compiled

FP8 = torch.float8_e4m3fn
MODELS = {"flux2": (SmallFlux2, "Flux2"), "z_image": (SmallZImage, "ZImage"), "lumina2": (SmallLumina2, "ZImage"),
          "krea2": (SmallKrea2, "Krea2"), "qwen_image": (SmallQwen, "QwenImage"), "chroma": (SmallChroma, "Chroma"),
          "chroma_radiance": (SmallRadiance, "ChromaRadiance"), "ovis_image": (SmallOvis, "LongCatImage"),
          "longcat_image": (SmallLongCat, "LongCatImage"), "sd3": (SmallSD3, "SD3"), "hunyuan_image": (SmallHunyuanImage, "HunyuanImage21"),
          "hunyuan_video": (SmallHunyuanVideo, "HunyuanVideo"), "hunyuan_video15": (SmallHunyuanVideo15, "HunyuanVideo15"),
          "wan": (SmallWan, "WAN21_T2V"), "wan22": (SmallWan22, "WAN22_T2V")}  # and classes of hosts that have them


@pytest.fixture(scope="module", params=MODELS)
def kind(request):
    kind, there = MODELS[request.param]
    if not hasattr(comfy.supported_models, there):
        pytest.skip("not on this host")
    return kind


@pytest.fixture(scope="module")
def drawn(kind):
    return kind.drawn()


@pytest.fixture(scope="module")
def small(kind, drawn):
    return kind(drawn)


def size(small) -> tuple[int, int]:
    """Of latents of 3 x 2 tokens or more."""
    return (48, 32) if small.channels == 3 else (6, 4)


def sampled(small, model=None, steps=1):
    return small.sample(model or small.patcher, size=size(small), steps=steps)


def watched(small, model=None, steps=1):
    """Picture and scores, of the better of the spaces that there are."""
    patched, runs = ConceptAttentionApply.execute(model or small.patcher, Clip(small.width), "cat, dog", "sky", 0.0, 1.0, "mean",
                                                  True).result
    picture = sampled(small, patched, steps)
    return picture, next(iter(runs.find(None)[0].recordings.values())).scores


@pytest.fixture(scope="module")
def plain(small):
    return watched(small)


def close(scores, expected, tolerance) -> None:
    error = (scores - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


@torch.no_grad()
def test_fp8_weights(kind, drawn):
    eighth = kind(drawn, dtype=FP8, computed=torch.float32)
    assert {weight.dtype for weight in eighth.patcher.model.diffusion_model.parameters()} >= {FP8}
    picture, scores = watched(eighth)
    assert torch.equal(picture, sampled(eighth)) and not traces(eighth.patcher)
    held = eighth.patcher.model.diffusion_model.state_dict()  # a few weights stay as they are
    rounded = {name: weight.to(held[name].dtype).float() for name, weight in drawn.weights().items()}
    all_rounded = kind(drawn)
    all_rounded.patcher.model.load_model_weights(rounded, "")
    close(scores, watched(all_rounded)[1], 1e-4)


@torch.no_grad()
def test_weights_that_can_only_be_read_by_calling(kind, drawn, plain, monkeypatch):
    if hasattr(comfy.ops, "linear_input_act"):  # where the host asks of what type a weight is, and calls the layer
        monkeypatch.setattr(comfy.ops, "linear_input_act", lambda linear, x, act: linear(comfy.ops.INPUT_ACT_EAGER[act](x)))
    packed = kind(drawn, operations=Packed)
    picture, scores = watched(packed)
    assert torch.equal(picture, plain[0]) and torch.equal(scores, plain[1])


@torch.no_grad()
def test_weights_that_are_cast_as_they_are_needed(small, monkeypatch, plain):
    """What --novram comes to: the host's own loader, with a budget of device memory that is too small."""
    left_out, usual = [], type(small.patcher).load

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False, **kwargs):
        result = usual(self, device_to, 0.1, force_patch_weights, False, **kwargs)
        left_out.append(sum(getattr(m, "comfy_cast_weights", False) for m in self.model.modules()))
        return result

    comfy.model_management.unload_all_models()
    monkeypatch.setattr(type(small.patcher), "load", load)
    picture, scores = watched(small)
    assert torch.equal(picture, plain[0]) and torch.equal(scores, plain[1])
    assert left_out and max(left_out) > 0, "no weight was left out of the device"


@pytest.mark.long
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_torch_compile(small, monkeypatch, backend):
    """Compiled code stays compiled, and its picture differs from the uncompiled one's as it does without us."""
    import comfy.ldm.modules.attention

    if isinstance(small, SmallSD3):
        pytest.skip("refused by name: test_matrix_neighbours.py")
    for name, module in list(sys.modules.items()):
        for attention in ("optimized_attention", "optimized_attention_masked"):
            if name.startswith("comfy.ldm.") and hasattr(module, attention):
                monkeypatch.setattr(module, attention, comfy.ldm.modules.attention.attention_pytorch)
    torch.compiler.reset()
    model = compiled(small.patcher, backend)
    for steps in (2, 3):  # the code is used again
        expected = sampled(small, model, steps)
        picture, scores = watched(small, compiled(small.patcher, backend), steps)
        assert torch.equal(picture, expected)
        close(scores, watched(small, steps=steps)[1], 1e-4)
    assert torch.equal(sampled(small, compiled(small.patcher, backend), 3), expected), "nothing of ours is left in the compiled code"
    torch.compiler.reset()
