"""Bad input gives an error that says what was given, what was expected and what to do."""

import pytest
import torch
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from concept_saliency.nodes.saliency_to_mask import ConceptSaliencyToMask


def look(runs, layers="auto", samples=None, **settings):
    values = dict(start_percent=0.0, end_percent=1.0, space="output", temperature=0.0) | settings
    return ConceptSaliency.execute(runs, layers, samples=samples, **values).result[0]


@pytest.mark.parametrize("concepts, message", [
    ("", "No concept was typed"),
    (" , \n |", "No concept was typed"),
    ("cat, dog, Cat", "'Cat' is there twice"),
    (", ".join(f"thing{i}" for i in range(33)), "33 concepts were typed, but at most 32"),
])
def test_concepts(apply, concepts, message):
    with pytest.raises(ValueError, match=message):
        apply(concepts)


def test_a_model_of_another_family_is_named(apply):
    import comfy.model_patcher
    import comfy.supported_models

    settings = comfy.supported_models.SD15({"model_channels": 32, "in_channels": 4, "out_channels": 4, "num_res_blocks": [1],
                                            "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1],
                                            "transformer_depth_middle": 1, "context_dim": 32, "num_heads": 2, "use_linear_in_transformer": False,
                                            "image_size": 32, "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None})
    settings.set_inference_dtype(torch.float32, None)
    model = comfy.model_patcher.ModelPatcher(settings.get_model({}), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"it is a BaseModel \(UNetModel\). Supported: Flux.1"):
        apply(model=model)


def test_nothing_sampled_yet(apply):
    with pytest.raises(ValueError, match="Nothing has been sampled.*Connect"):
        look(apply()[1])


def test_layers_spaces_steps_and_names(flux, apply):
    model, runs = apply()
    samples = {"samples": flux.sample(model)}
    for layers, message in (("2-9", "layers are 0 to 3"), ("seven", "cannot be read"), ("", "cannot be read"), ("3-1", "runs backwards"),
                            ("-9", "ask for"), ("99999999999999", "cannot be read"), ("9:", "ask for none")):
        with pytest.raises(ValueError, match=message):
            look(runs, layers, samples)
    with pytest.raises(ValueError, match="cross_attention"):
        look(runs, samples=samples, space="cross-attention")
    with pytest.raises(ValueError, match="Recorded steps began at"):
        look(runs, samples=samples, start_percent=0.9, end_percent=0.95)
    with pytest.raises(ValueError, match="no concept 'horse'.*Known: cat, dog"):
        ConceptSaliencyToMask.execute(look(runs, samples=samples), "horse", "mean", 0.5, 0, 0, False, 0, False)
