"""Families in which text and image share their weights: ComfyUI lets none of their blocks be replaced, so all attention is watched."""

from __future__ import annotations

import comfy.supported_models
import pytest
import torch
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from conftest import Clip
from oracle import of, traces
from small_models import SmallKrea2, SmallLumina2, SmallZImage
from test_comfy_compiler import compiler, kept  # noqa: F401
from test_matrix_neighbours import overridden

MODELS = {"z_image": (SmallZImage, "ZImage"), "lumina2": (SmallLumina2, "ZImage"), "krea2": (SmallKrea2, "Krea2")}  # and hosts' classes


@pytest.fixture(scope="module", params=MODELS)
def small(request):
    kind, there = MODELS[request.param]
    if not hasattr(comfy.supported_models, there):
        pytest.skip("not on this host")
    return kind(kind.drawn())


@pytest.fixture
def apply(small):
    def run(model=None, cross_attention=True):
        return ConceptAttentionApply.execute(model or small.patcher, Clip(small.width), "cat, dog", "sky", 0.0, 1.0, "mean",
                                             cross_attention).result

    return run


def recording(runs):
    return runs.find(None)[0].recordings["output"]


def test_who_replaced_the_attention_before_goes_on(small, apply):
    calls = []
    model = overridden(small.patcher, calls)
    plain, count = small.sample(model), len(calls)
    calls.clear()
    mine, runs = apply(model)
    assert torch.equal(small.sample(mine), plain) and len(calls) >= count > 0, "in the refiners and in the layers"
    assert not torch.equal(plain, small.sample(small.patcher)), "the neighbour does something"
    assert len(recording(runs).sigmas) == 3
    calls.clear()
    after = overridden(apply()[0], calls)
    assert torch.equal(small.sample(after), plain)
    assert not traces(small.patcher)


def test_blocks_are_known_by_their_numbers_in_this_call_alone(small, apply):
    """A number that another call left behind marks no attention of the refiners, and a pass without numbers is reported."""
    model, runs = apply()
    plain = small.sample(model)
    expected = recording(runs).scores
    left = small.patcher.clone()
    left.model_options["transformer_options"]["block_index"] = 0
    mine, runs = apply(left)
    assert torch.equal(small.sample(mine), plain) and torch.equal(recording(runs).scores, expected)

    mine, runs = apply()
    watch = of(mine).watch
    usual = watch.numbered

    def numbered(seen, place, override, function, *args, **kwargs):
        kwargs["transformer_options"] = {k: v for k, v in kwargs["transformer_options"].items() if k != "block_index"}
        return usual(seen, place, override, function, *args, **kwargs)

    watch.numbered = numbered
    assert torch.equal(small.sample(mine), plain)
    run = runs.find(None)[0]
    assert not run.recordings and run.notes[0].startswith("3 of 3 steps are not recorded")


def test_the_compilers_record_is_the_models_own_and_nothing_kept_lies_in_it(small, apply, compiler, kept, monkeypatch):  # noqa: F811
    kind = type(small.patcher.model.diffusion_model)
    plain = small.sample(small.patcher)
    monkeypatch.setattr(kind, "forward", compiler.forward(kind.forward))
    assert torch.equal(small.sample(small.patcher), plain)
    expected, compiler.records = compiler.records, []
    assert len(expected) == 3 and all(expected) and not compiler.pauses
    model, runs = apply()
    assert torch.equal(small.sample(model), plain)
    assert compiler.records == expected, "with the pack the model allocates otherwise"
    depth = recording(runs).depth
    assert len(kept) == 3 * depth and all(map(all, kept)) and len(recording(runs).sigmas) == 3
    whole = 2 if isinstance(small, SmallKrea2) else 3  # states, modulation, and RoPE where it is not the identity; two scores a block
    assert [len(look) for look in kept[:depth]] == [whole + 2 * (i + 1) for i in range(depth)]


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.01)], ids=["bf16", "fp16"])
def test_half_precision(small, apply, dtype, tolerance):
    half = type(small)(type(small).drawn(), dtype=dtype)
    model, runs = apply(half.patcher)
    assert torch.equal(half.sample(model, steps=1), half.sample(half.patcher, steps=1))
    expected_model, expected = apply()
    small.sample(expected_model, steps=1)
    scores, wanted = recording(runs).scores, recording(expected).scores
    assert (scores - wanted).abs().max() <= tolerance * wanted.abs().max()
