"""Capture on diffusers: the authors' numbers, pictures that stay the same, and which calls are recorded."""

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers  # noqa: E402
from tiny_diffusers import CONCEPTS, capture, check_same, draw, one_thread, tiny  # noqa: E402

from concept_saliency.core.families import flux1  # noqa: E402
from concept_saliency.core.masks import mask  # noqa: E402
from concept_saliency.core.recording import Recorder, Recording  # noqa: E402
from concept_saliency.core.stream import ConceptStream  # noqa: E402
from concept_saliency.headless import capture as module  # noqa: E402
from concept_saliency.headless.runs import Recordings  # noqa: E402

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


@pytest.fixture
def pipe():
    return tiny()


def converted(weights: dict, width: int) -> dict:
    """Weights in Black Forest Labs' naming -> diffusers', by diffusers' own converter.

    It takes every model to be 3072 wide where it splits a single block's first layer, and only there. So those
    layers are filled up to that size beforehand, and cut back afterwards.
    """
    parts, full = (width, width, width, 4 * width), (3072, 3072, 3072, 4 * 3072)
    for name in [name for name in weights if ".linear1." in name]:
        pieces = zip(weights[name].split(parts), full)
        weights[name] = torch.cat([torch.cat((piece, piece.new_zeros(rows - len(piece), *piece.shape[1:])))
                                   for piece, rows in pieces])
    result = convert_flux_transformer_checkpoint_to_diffusers(weights)
    rows = {"attn.to_q": width, "attn.to_k": width, "attn.to_v": width, "proj_mlp": 4 * width}
    for name in result:
        layer = name.removeprefix("single_transformer_blocks.").partition(".")[2].rpartition(".")[0]
        if name.startswith("single_") and layer in rows:
            result[name] = result[name][:rows[layer]]
    return result


@pytest.mark.parametrize("name", ["flux1_dev_like", "flux1_schnell_like"])
@torch.no_grad()
def test_the_authors_numbers(golden, name, monkeypatch):
    data = golden(name)
    config, (rows, columns) = data.about["config"], data.about["grid"]
    model = diffusers.FluxTransformer2DModel(
        num_layers=config["depth"], num_single_layers=config["depth_single_blocks"], attention_head_dim=128,
        num_attention_heads=config["num_heads"], joint_attention_dim=config["context_in_dim"],
        pooled_projection_dim=config["vec_in_dim"], guidance_embeds=config["guidance_embed"])
    model.load_state_dict(converted(data.weights(), config["hidden_size"]))
    vectors = dict(zip("abcdefg", data["concepts"][0]))
    outputs, watch = [], ConceptStream.watch
    monkeypatch.setattr(ConceptStream, "watch", lambda *seen: outputs.append(watch(*seen)))
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(float(rows)), torch.arange(float(columns)))
    given = dict(encoder_hidden_states=data["txt"], pooled_projections=data["pooled"], img_ids=ids,
                 txt_ids=torch.zeros(data["txt"].shape[1], 3),
                 guidance=torch.tensor([data.about["guidance"]]) if config["guidance_embed"] else None)
    with capture(model, list(vectors), encode=lambda phrase: vectors[phrase][None], contrast="") as recordings:
        for step, level in enumerate(data.about["timesteps"]):
            call = dict(given, hidden_states=data[f"step{step}.img"], timestep=torch.tensor([level]))
            predicted = model(**call).sample
            data.assert_close(predicted, f"step{step}.pred")
            data.assert_close(torch.stack(outputs[-config["depth"]:]), f"step{step}.concept_out")
            data.assert_close(recordings.latest.scores[step].flatten(-2), f"step{step}.scores")
    assert torch.equal(predicted, model(**call).sample), "watching must not change the prediction by one bit"
    recording = recordings.latest
    assert (recording.family, recording.defaults, recording.image_size) == (flux1.NAME, flux1.DEFAULTS, (rows * 16, columns * 16))
    assert recording.sigmas == pytest.approx(data.about["timesteps"])
    data.assert_close(recording.saliency(layers="-2:").maps, "heatmaps_last2_all_steps")


@pytest.mark.parametrize("how", [{}, {"num_images_per_prompt": 2}, {"prompt": ["a cat", "a dog"]}, {"height": 128, "width": 32},
                                 {"num_inference_steps": 1}, {"sigmas": [0.9, 0.4, 0.1]}])
def test_pictures_stay_the_same(pipe, how):
    recording = check_same(pipe, **how)
    assert recording.concepts == ("cat", "red dog") and len(recording.contrast) == 6
    assert len(recording.sigmas) == how.get("num_inference_steps", 3)
    steps = len(recording.sigmas)
    assert recording.progress == pytest.approx([i / steps for i in range(steps)])
    assert recording.sigmas == pytest.approx((pipe.scheduler.timesteps / 1000).tolist())


def test_half_precision(pipe):
    recording = check_same(pipe.to(torch.bfloat16), num_inference_steps=40)
    assert recording.progress == pytest.approx([i / 40 for i in range(40)]), "rounded timesteps are known again"


def test_the_negative_prompt_is_not_recorded(pipe):
    with capture(pipe, CONCEPTS) as alone:
        draw(pipe, num_inference_steps=1)
    how = dict(true_cfg_scale=3.0, negative_prompt="moon")
    with capture(pipe, CONCEPTS) as guided:
        draw(pipe, num_inference_steps=1, **how)
    assert torch.equal(alone.latest.scores, guided.latest.scores) and len(guided) == 1
    assert len(check_same(pipe, **how).sigmas) == 3


def test_one_recording_for_every_run(pipe):
    with capture(pipe, CONCEPTS, cross_attention=True) as recordings:
        with pytest.raises(ValueError, match="Nothing has been recorded yet"):
            recordings.latest
        for seed in (0, 0, 1):
            draw(pipe, seed, num_inference_steps=1)
        draw(pipe, width=64)
        draw(pipe, width=64)
        assert len(recordings) == 5
    assert [len(r.sigmas) for r in recordings] == [1, 1, 1, 3, 3]
    some = recordings.in_space("cross-attention")[1:4]
    assert isinstance(some, Recordings) and [len(r.sigmas) for r in some] == [1, 1, 3] and some.latest.space == "cross-attention"
    assert torch.equal(recordings[0].scores, recordings[1].scores) and not torch.equal(recordings[0].scores, recordings[2].scores)
    crossed = recordings.in_space("cross-attention").latest
    assert crossed.space == "cross-attention" and crossed.scores.shape == recordings.latest.scores.shape
    with pytest.raises(ValueError, match="expected one of output"):
        recordings.in_space("input")


def test_a_window_and_tokens(pipe):
    with capture(pipe.transformer, ["cat", "red dog"], encode=pipe, contrast="", token="first", start=0.3, end=0.7) as recordings:
        draw(pipe, num_inference_steps=4)
    assert recordings.latest.progress == pytest.approx((0.5,)) and recordings.latest.concepts == ("cat", "red dog")
    with capture(pipe, CONCEPTS) as recordings:
        draw(pipe)
    with pytest.raises(ValueError, match="'cross-attention' was not recorded"):
        recordings.in_space("cross-attention").latest
    with capture(pipe, CONCEPTS, start=0.9) as recordings:
        draw(pipe)
    with pytest.raises(ValueError, match="no step lay between start and end"):
        recordings.latest


def test_a_transformer_without_a_scheduler(pipe):
    """A loop of one's own: noise that rises, or another picture at the same noise, begins a new recording."""
    with torch.no_grad():
        embeds, pooled, text_ids = pipe.encode_prompt("a cat", max_sequence_length=8)
        ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.), torch.arange(6.))
        first, second = torch.randn(2, 1, 24, 64, generator=torch.Generator().manual_seed(0))
        with capture(pipe.transformer, "cat", encode=lambda phrase: torch.ones(1, 32)) as recordings:
            for tokens, level in ((first, 0.8), (first, 0.4), (first, 0.4), (first, 0.8), (second, 0.8)):
                pipe.transformer(tokens, embeds, pooled, torch.tensor([level]), ids, text_ids, torch.tensor([3.5]))
    assert [len(r.sigmas) for r in recordings] == [2, 1, 1]
    assert recordings[0].progress == pytest.approx((0.0, 0.5)) and recordings[0].sigmas == pytest.approx((0.8, 0.4))


@torch.no_grad()
def test_a_corrector_s_call_is_not_recorded(pipe):
    """Second-order schedulers call twice at one noise level, with other latents."""
    embeds, pooled, text_ids = pipe.encode_prompt("a cat", max_sequence_length=8)
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.), torch.arange(6.))
    pipe.scheduler.set_timesteps(2)
    with capture(pipe, "cat") as recordings:
        for t in pipe.scheduler.timesteps.repeat_interleave(2):
            pipe.transformer(torch.randn(1, 24, 64), embeds, pooled, t[None] / 1000, ids, text_ids, torch.tensor([3.5]))
    assert len(recordings) == 1 and recordings.latest.progress == pytest.approx((0.0, 0.5))


def test_memory_is_bounded(pipe, monkeypatch):

    class Small(Recorder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs, max_bytes=3000 * 4)

    monkeypatch.setattr(module, "Recorder", Small)
    with pytest.warns(UserWarning, match="one step in 2 is recorded"), capture(pipe, "cat") as recordings:
        draw(pipe, num_inference_steps=8)
    assert len(recordings.latest.sigmas) == 4


def test_what_goes_wrong_is_said_in_a_caller_s_words(pipe):
    """Nobody who writes Python has nodes to connect."""
    said = []
    with capture(pipe, CONCEPTS) as recordings:
        draw(pipe)
    recording = recordings.latest
    broken = replace(recording, scores=recording.scores * torch.nan)
    for fails in (lambda: capture(pipe, [f"cat {i}" for i in range(40)]).__enter__(), lambda: recording.saliency(start=0.9, end=0.95),
                  broken.saliency, lambda: mask(recording.saliency(), image=torch.zeros(1, 8, 8, 3)), lambda: recording.saliency("99"),
                  lambda: Recording.load(__file__), lambda: mask(recording.saliency(), "moon")):
        with pytest.raises(ValueError) as error:
            fails()
        said.append(str(error.value))
    assert not [text for text in said if re.search(r"\bnodes?\b|[Cc]onnect|_percent", text)], said


def test_what_python_callers_import():
    import concept_saliency

    assert set(concept_saliency.__all__) == {"__version__", "capture", "saliency_of_image"}
    pyproject = (Path(concept_saliency.__file__).parent / "pyproject.toml").read_text()
    assert f'\nversion = "{concept_saliency.__version__}"' in pyproject
    citation = (Path(concept_saliency.__file__).parent / "CITATION.cff").read_text()
    assert f"\nversion: {concept_saliency.__version__}\n" in citation
    assert (Path(concept_saliency.__file__).parent / "py.typed").is_file()
    for function in (concept_saliency.capture, concept_saliency.saliency_of_image):
        kinds = inspect.signature(function)
        assert all(p.annotation is not p.empty and p.kind is not p.VAR_KEYWORD for p in kinds.parameters.values())


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, concept_saliency as c; print(sorted({'torch', 'diffusers'} & set(sys.modules)), hasattr(c, 'NODES'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[] False"
