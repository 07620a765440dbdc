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
                                            "transformer_depth_middle": 1, "context_dim": 32, "num_heads": 2,
                                            "use_linear_in_transformer": False,
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
    with pytest.raises(ValueError, match="no concept 'horse'.*Known: 1 cat, 2 dog"):
        ConceptSaliencyToMask.execute(look(runs, samples=samples), "horse", "mean", 0.5, 0, 0, False, 0, False)


def made(height=64, width=96, concepts=("cat", "dog"), batch=1):
    from concept_saliency.core.saliency import Saliency

    h, w = -(-height // 16), -(-width // 16)
    maps = torch.rand(batch, len(concepts), h, w, generator=torch.Generator().manual_seed(0)) / 2
    return Saliency(tuple(concepts), maps, (height, width), (h * 16, w * 16), maps.amax((2, 3)), ("sky",), 1 - maps.sum(1, keepdim=True))


@pytest.mark.parametrize("concepts", ["🐈 cat, naïve café", "x" * 500, "dog + cat", "(a:1.5), [b], {c|d}", "a; b. c"])
def test_unusual_names_work_from_end_to_end(flux, apply, concepts):
    model, runs = apply(concepts)
    samples = {"samples": flux.sample(model, steps=1)}
    saliency = look(runs, samples=samples)
    for name in saliency.concepts:
        assert ConceptSaliencyToMask.execute(saliency, name, "argmax", 0.5, 0, 0, False, 0, False).result[0].shape == (1, 96, 128)


def test_pictures_that_do_not_fit():
    from concept_saliency.nodes.saliency_overlay import ConceptSaliencyOverlay
    from concept_saliency.nodes.saliency_to_segs import ConceptSaliencyToSEGS

    with pytest.raises(ValueError, match="holds 3 pictures, but the saliency is of 2"):
        ConceptSaliencyOverlay.execute(made(batch=2), torch.rand(3, 64, 96, 3), "plasma", 0.5, True)
    with pytest.raises(ValueError, match="3 picture.*but the saliency is of 2"):
        ConceptSaliencyToMask.execute(made(batch=2), "", "mean", 0.5, 0, 0, False, 0, False, torch.rand(3, 64, 96, 3))
    with pytest.raises(ValueError, match="'image' holds 1 pictures, but the saliency is of 2"):
        ConceptSaliencyToSEGS.execute(made(batch=2), torch.rand(1, 64, 96, 3), 2.0)


def test_the_smallest_and_very_wide_pictures(flux, apply):
    for size in ((1, 1), (2, 64)):
        model, runs = apply()
        saliency = look(runs, samples={"samples": flux.sample(model, size=size, steps=1)})
        mask = ConceptSaliencyToMask.execute(saliency, "", "otsu", 0.5, 2, 5, True, 1, False,
                                              torch.rand(1, size[0] * 8, size[1] * 8, 3)).result[0]
        assert mask.shape == (1, size[0] * 8, size[1] * 8)


def test_a_picture_with_8000_pixels_a_side():
    saliency = made(8000, 8000, concepts=("cat",))
    mask = ConceptSaliencyToMask.execute(saliency, "", "mean", 0.5, 0, 0, False, 0, False).result[0]
    assert mask.shape == (1, 8000, 8000) and 0.2 < mask.mean() < 0.8


@pytest.mark.parametrize("content, message", [
    (b"", "cannot be read"), (b"\x89PNG\r\n\x1a\n" + b"0" * 64, "cannot be read"),
    ((10 * 2**30).to_bytes(8, "little") + b"{}", "cannot be read"),
])
def test_files_that_are_no_saliency(tmp_path, monkeypatch, content, message):
    import folder_paths
    from concept_saliency.nodes.saliency_files import ConceptSaliencyLoad

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    (tmp_path / "file.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ConceptSaliencyLoad.execute("file.safetensors")


def test_a_file_with_nan_and_a_file_of_another_kind(tmp_path, monkeypatch):
    import folder_paths
    from concept_saliency.nodes.saliency_files import ConceptSaliencyLoad
    from safetensors.torch import save_file

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    one = made()
    one.maps[0, 0, 0, 0] = float("nan")  # as a damaged file may hold
    one.save(tmp_path / "nan.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (("nan.safetensors", "not finite"), ("other.safetensors", "Choose a file that Concept Saliency saved")):
        with pytest.raises(ValueError, match=message):
            ConceptSaliencyLoad.execute(name)


def test_a_window_that_runs_backwards(apply):
    with pytest.raises(ValueError, match="the start must come first"):
        apply(start_percent=0.8, end_percent=0.2)
