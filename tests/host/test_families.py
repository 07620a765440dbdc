"""Every family: golden values, a plain second computation, existing pictures. A new one is one entry in CASES."""

from __future__ import annotations

from dataclasses import dataclass
from collections.abc import Callable

import comfy.ldm.flux.layers
import comfy.ldm.flux.model
import comfy.sample
import comfy.samplers
import comfy.supported_models
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from concept_saliency.core.families import FAMILIES
from concept_saliency.core.families.flux1.comfyui import timestep_embedding
from concept_saliency.nodes import host
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from concept_saliency.nodes.concept_attention_image import ConceptAttentionImage
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from conftest import Clip, SmallFlux, SmallFlux2
from oracle import traces
from reference import DoubleStream
from reference_joint import SD3, QwenImage
from reference_single import Krea2, NextDiT
from reference_video import HunyuanImage
from small_models import (
    SmallChroma,
    SmallHunyuanImage,
    SmallKrea2,
    SmallLongCat,
    SmallLumina2,
    SmallOvis,
    SmallQwen,
    SmallRadiance,
    SmallSD3,
    SmallSD35,
    SmallZImage,
)

TOLERANCE = 2e-4  # of the largest value


@dataclass(frozen=True)
class Case:
    """One family. golden: its file, or any name where drawn makes one. model: from the file to a small model; bare: one that
    gets the prompt as it is. references: whether it takes reference latents."""

    family: str
    golden: str
    model: Callable
    bare: Callable
    reference: DoubleStream | HunyuanImage | Krea2 | NextDiT | QwenImage | SD3
    text_key: str
    there: bool = True
    drawn: Callable | None = None
    references: bool = True

    def latent(self, size) -> tuple[int, int]:
        """A size in latent values of 8 pixels -> one in this family's, where they are smaller."""
        scale = max(1, self.reference.patch // 2)
        return size[0] * scale, size[1] * scale


CASES = {case.golden: case for case in (
    Case("flux1", "flux1_dev_like", SmallFlux, SmallFlux, DoubleStream(patch=2), "t5xxl"),
    Case("flux1", "flux1_schnell_like", SmallFlux, SmallFlux, DoubleStream(patch=2), "t5xxl"),
    Case("flux2", "flux2_like", SmallFlux2, SmallFlux2.bare,
         DoubleStream(patch=1, text_axes=(3,), concept_at=510, reference_scale=10.0, global_modulation=True, gated=True), "mistral3_24b",
         "global_modulation" in comfy.ldm.flux.model.FluxParams.__dataclass_fields__),
    Case("z_image", "z_image", SmallZImage, SmallZImage, NextDiT(concept_at=4), "qwen3_4b", hasattr(comfy.supported_models, "ZImage"),
         drawn=SmallZImage.drawn),
    Case("lumina2", "lumina2", SmallLumina2, SmallLumina2, NextDiT(concept_at=2, multiple=1, modulation="adaLN_modulation.1", silu=True,
                                                                   from_1000=False), "gemma2_2b",
         hasattr(comfy.supported_models, "ZImage"), drawn=SmallLumina2.drawn, references=False),  # the hosts that number its layers
    Case("krea2", "krea2", SmallKrea2, SmallKrea2, Krea2(), "qwen3vl_4b", hasattr(comfy.supported_models, "Krea2"), drawn=SmallKrea2.drawn),
    Case("qwen_image", "qwen_image", SmallQwen, SmallQwen, QwenImage(), "qwen25_7b", drawn=SmallQwen.drawn),
    Case("chroma", "chroma", SmallChroma, SmallChroma, DoubleStream(patch=2, distilled=True), "t5xxl",
         drawn=SmallChroma.drawn, references=False),
    Case("chroma_radiance", "chroma_radiance", SmallRadiance, SmallRadiance,
         DoubleStream(patch=16, distilled=True, text_axes=(0,) if "use_sequential_txt_ids" in SmallRadiance.known() else ()), "t5xxl",
         drawn=SmallRadiance.drawn, references=False),
    Case("ovis_image", "ovis_image", SmallOvis, SmallOvis, DoubleStream(patch=2, text_axes=(1, 2), gated=True), "qwen3_2b",
         "yak_mlp" in comfy.ldm.flux.model.FluxParams.__dataclass_fields__, drawn=SmallOvis.drawn),
    Case("longcat_image", "longcat_image", SmallLongCat, SmallLongCat, DoubleStream(patch=2, text_axes=(1, 2), behind_text=True),
         "qwen25_7b", hasattr(comfy.supported_models, "LongCatImage"), drawn=SmallLongCat.drawn),
    Case("sd3", "sd3", SmallSD3, SmallSD3, SD3(), "l", drawn=SmallSD3.drawn, references=False),
    Case("sd3", "sd35", SmallSD35, SmallSD35, SD3(), "l", drawn=SmallSD35.drawn, references=False),
    Case("hunyuan_image", "hunyuan_image", SmallHunyuanImage, SmallHunyuanImage, HunyuanImage(1), "qwen25_7b",
         drawn=SmallHunyuanImage.drawn, references=False),
)}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    if not CASES[request.param].there:
        pytest.skip("not on this host")
    return CASES[request.param]


@pytest.fixture(scope="module")
def data(case, golden):
    return golden(case.golden) if case.drawn is None else case.drawn()


@pytest.fixture(scope="module")
def small(case, data):
    return case.model(data)


@pytest.fixture
def clip(case, small):
    return Clip(small.width, key=case.text_key)


def patched(model, clip, concepts="cat, dog", contrast="sky", token="mean", blocks="auto"):
    """MODEL, runs: both spaces are recorded, all the time."""
    return ConceptAttentionApply.execute(model, clip, concepts, contrast, 0.0, 1.0, token, True, blocks).result


def newest(runs, space="output"):
    return runs.find(None)[0].recordings[space]


def test_every_family_has_a_case():
    videos = {name for name, family in FAMILIES.items() if hasattr(family, "COMPRESSION")}  # see test_video.py
    assert {case.family for case in CASES.values()} == set(FAMILIES) - videos


def test_golden_values_come_out_through_the_nodes(case, data):
    if case.drawn is not None:
        pytest.skip("no published implementation to take golden values from")
    small, about, grid = case.bare(data), data.about, data.about["grid"]
    assert case.family == host.family_of(small.patcher).NAME
    count, channels, patch = data["concepts"].shape[1], small.channels, case.reference.patch
    clip = Clip(small.width, {f"c{i}": data["concepts"][0, i] for i in range(count)}, case.text_key)
    model, runs = patched(small.patcher, clip, ", ".join(f"c{i}" for i in range(count)), "", "first")
    predictions = []

    def unpack(tokens):
        folded = tokens.transpose(1, 2).reshape(1, channels, patch, patch, *grid).permute(0, 1, 4, 2, 5, 3)
        return folded.reshape(1, channels, grid[0] * patch, grid[1] * patch)

    def steps(predict, noise, sigmas, extra_args=None, callback=None, disable=None):
        for step, sigma in enumerate(about["timesteps"]):
            x, t = unpack(data[f"step{step}.img"]), torch.tensor([sigma])
            predictions.append((x - predict(x, t, **extra_args)) / sigma)
        return noise

    positive = [[data["txt"], {"guidance": about["guidance"]} | ({"pooled_output": data["pooled"]} if "pooled" in data.tensors else {})]]
    latent = torch.zeros(1, channels, grid[0] * patch, grid[1] * patch)
    comfy.sample.sample_custom(model, torch.randn_like(latent), 1.0, comfy.samplers.KSAMPLER(steps),
                               torch.tensor([*about["timesteps"], 0.0]), positive, positive, latent, disable_pbar=True)
    for step in range(len(about["timesteps"])):
        for space, name in (("output", "scores"), ("cross-attention", "cross_scores")):
            if f"step{step}.{name}" in data.tensors:
                data.assert_close(newest(runs, space).scores[step].flatten(-2), f"step{step}.{name}")
        error = (predictions[step] - unpack(data[f"step{step}.pred"])).abs().max() / data[f"step{step}.pred"].abs().max()
        assert error <= TOLERANCE
    if "heatmaps_last2_all_steps" in data.tensors:
        maps = ConceptSaliency.execute(runs, "-2:", 0.0, 1.0, "output", 0.0).result[0].maps
        data.assert_close(maps, "heatmaps_last2_all_steps")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_concepts_are_told_the_guidance_that_the_text_is_told(dtype):
    """A thousandfold is rounded to the model's type: 6000 is 6016 in bfloat16, whose embedding is quite another."""
    given = torch.tensor([0.3, 3.5, 6.0], dtype=dtype)
    for factor in (1.0, 1000.0):
        theirs = comfy.ldm.flux.layers.timestep_embedding(given, 256, time_factor=factor)
        assert torch.equal(timestep_embedding(given, factor=factor).to(dtype), theirs)


class Probe:
    """Writes down what the transformer is called with for the positive prompt: by noise level, rows of a batch."""

    def __init__(self, model):
        self.seen = {}
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", self.wrapper)

    def wrapper(self, executor, *args, **kwargs):
        handle = executor.class_obj.diffusion_model.register_forward_pre_hook(self.see, with_kwargs=True)
        try:
            return executor(*args, **kwargs)
        finally:
            handle.remove()

    def see(self, transformer, args, kwargs) -> None:
        given = {"x": args[0], "timestep": args[1], **kwargs}
        kinds, x = given["transformer_options"]["cond_or_uncond"], given["x"]
        batch = len(x) // len(kinds)
        rows = slice(kinds.index(0) * batch, (kinds.index(0) + 1) * batch) if 0 in kinds else slice(0)
        for row in range(len(x))[rows]:
            one = {name: given.get(name) for name in ("context", "guidance", "y")}
            text, guidance, pooled = (None if value is None else value[row] for value in one.values())
            self.seen.setdefault(float(given["transformer_options"]["sigmas"][0]), []).append(
                dict(latent=x[row], text=text, t=given["timestep"][row], guidance=guidance, pooled=pooled,
                     references=[r[row] for r in given.get("ref_latents") or ()]))

    def check(self, case, data, clip, runs, concepts=("cat", "dog", "sky"), **more) -> None:
        """What was recorded is what the reference computes of the same inputs."""
        vectors = torch.stack([clip.encode_from_tokens(clip.tokenize(concept))[0, 0] for concept in concepts])
        for step, sigma in enumerate(newest(runs).sigmas):
            for picture, inputs in enumerate(self.seen[sigma]):
                expected = case.reference.scores(data.weights(), data.about["config"], concepts=vectors, **more, **inputs)
                for space, scores in expected.items():
                    mine = newest(runs, space).scores[step, :, picture].flatten(-2)
                    assert mine.shape == scores.shape
                    error = (mine - scores).abs().max() / scores.abs().max()
                    assert error <= TOLERANCE, f"{space}, noise level {sigma:.3f}, picture {picture}: {error:.1e}"


SAMPLING = {
    "plain": {},
    "batch of two, cfg 4": dict(batch=2, cfg=4.0),
    "5 x 8 latent": dict(size=(5, 8)),
    "references": dict(references=[(4, 6), (6, 4)]),
}


def single(case, data, blocks: str) -> dict[str, int]:
    """How many single-stream blocks a choice reaches, for references that know any."""
    count = data.about["config"].get("depth_single_blocks")
    if count is None and blocks != "auto":
        pytest.skip("there are no single-stream blocks")
    return {} if count is None else {"singles": {"double and first single": 1, "all": count}.get(blocks, 0)}


@pytest.mark.parametrize("blocks", ["auto", "all"])
@pytest.mark.parametrize("name", SAMPLING)
@torch.no_grad()
def test_the_picture_does_not_change_and_scores_are_those_of_the_plain_computation(case, data, small, clip, name, blocks):
    settings, more = {"size": (6, 4), "steps": 2, **SAMPLING[name]}, single(case, data, blocks)
    settings["size"] = case.latent(settings["size"])
    if "references" in settings and not case.references:
        pytest.skip("takes none")
    references = [torch.randn(1, small.channels, *small.frames, *size, generator=torch.Generator().manual_seed(i))
                  for i, size in enumerate(settings.pop("references", ()))]
    seen = dict(reference_latents=references, reference_latents_method="index") if references else {}
    positive, probe = small.conditioning(1, **seen), Probe(small.patcher)
    plain = small.sample(small.patcher, positive=positive, **settings)
    model, runs = patched(probe.model, clip, blocks=blocks)
    assert torch.equal(small.sample(model, positive=positive, **settings), plain)
    recording, patch, pixels = newest(runs), case.reference.patch, FAMILIES[case.family].PIXELS // FAMILIES[case.family].PATCH
    assert recording.scores.shape[-2:] == tuple(-(-side // patch) for side in settings["size"])
    assert recording.image_size == tuple(side * pixels for side in settings["size"]) and recording.family == case.family
    assert len(recording.sigmas) == settings["steps"]
    assert recording.singles == more.get("singles", 0) and recording.depth == recording.scores.shape[1]
    probe.check(case, data, clip, runs, **more)
    assert not traces(small.patcher)


@pytest.mark.parametrize("blocks", ["auto", "double", "double and first single"])
@torch.no_grad()
def test_an_existing_picture_is_read_in_one_partial_pass(case, data, small, clip, monkeypatch, blocks):
    more = single(case, data, blocks)
    probe, latent = Probe(small.patcher), torch.randn(1, small.channels, *case.latent((6, 4)), generator=torch.Generator().manual_seed(3))
    transformer = small.patcher.model.diffusion_model
    ends = "norm_out", "final_layer", "last", "nerf_image_embedder"
    last = next(getattr(transformer, name) for name in ends if hasattr(transformer, name))
    for module in (*getattr(transformer, "single_blocks", ())[more.get("singles", 0):], last):
        monkeypatch.setattr(module, "forward", lambda *args, **kwargs: pytest.fail("the pass did not stop where all had been seen"))
    runs = ConceptAttentionImage.execute(probe.model, clip, "cat, dog", "sky", 0.5, 1, 7, "mean", True, latent={"samples": latent},
                                         conditioning=small.conditioning(1), blocks=blocks).result[0]
    assert newest(runs).sigmas == (0.5,) and newest(runs).singles == more.get("singles", 0)
    probe.check(case, data, clip, runs, **more)
    monkeypatch.undo()
    assert not traces(small.patcher)


def test_automatic_layers_and_maps_are_the_familys(case, small, clip):
    model, runs = patched(small.patcher, clip)
    small.sample(model, size=case.latent((6, 4)), steps=4)
    saliency, recording = ConceptSaliency.execute(runs, "auto", 0.0, 1.0, "output", 0.0).result[0], newest(runs)
    defaults = FAMILIES[case.family].DEFAULTS
    assert recording.defaults == defaults
    scores = recording.scores[:, defaults.layers(recording.depth)].double()
    if defaults.softmax_first:
        expected = (scores / defaults.temperature).softmax(3).mean((0, 1))
    else:
        late = torch.tensor(recording.progress) >= defaults.first_step
        expected = (scores[late].mean((0, 1)) / defaults.temperature).softmax(1)
    torch.testing.assert_close(saliency.maps.double(), expected[:, :2], rtol=1e-4, atol=1e-5)


def test_a_model_of_no_family_is_refused_and_all_that_are_supported_are_named(small, clip):
    class Other(torch.nn.Module):
        """No transformer of any family."""

    other = small.patcher.clone()
    other.add_object_patch("diffusion_model", Other())
    with pytest.raises(ValueError, match="it is a .*Other.*Supported") as error:
        patched(other, clip)
    assert all(family.TITLE in str(error.value) for family in FAMILIES.values())
