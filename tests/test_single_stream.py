"""Concept tokens on their way through single-stream blocks: against a plain second computation, and how their layers are counted."""

import json
from dataclasses import replace

import pytest
import torch
from host.reference import DoubleStream
from safetensors import safe_open
from safetensors.torch import save_file

from concept_saliency.core.families import Defaults, flux1
from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.recording import Recorder, Recording
from concept_saliency.core.saliency import saliency
from concept_saliency.core.stream import ConceptStream
from concept_saliency.demo.flux import Flux, FluxConfig
from concept_saliency.demo.pipeline import TinyFlux

TOLERANCE = 2e-4  # of the largest value


def close(mine: torch.Tensor, expected: torch.Tensor) -> None:
    assert mine.shape == expected.shape
    assert (mine - expected).abs().max() / expected.abs().max() <= TOLERANCE


def folded(tokens: torch.Tensor, grid, channels: int, patch: int) -> torch.Tensor:
    """1 x N x D -> latent channels x h x w."""
    latent = tokens[0].unflatten(0, tuple(grid)).unflatten(-1, (channels, patch, patch)).permute(2, 0, 3, 1, 4)
    return latent.reshape(channels, grid[0] * patch, grid[1] * patch)


def reference(data, kind: DoubleStream, channels: int = 16, references=()) -> dict[str, torch.Tensor]:
    """Scores by space, L x C x N, of a golden file's first step, through all blocks."""
    about = data.about
    latent = folded(data["step0.img"], about["grid"], channels, kind.patch)
    guidance = torch.tensor(about["guidance"]) if about["config"].get("guidance_embed", True) else None
    pooled = data["pooled"][0] if "pooled" in data.tensors else None
    return kind.scores(data.weights(), about["config"], latent, data["txt"][0], data["concepts"][0], torch.tensor(about["timesteps"][0]),
                       guidance, pooled, references, singles=about["config"]["depth_single_blocks"])


@pytest.mark.parametrize("name", ["flux1_dev_like", "flux1_schnell_like"])
@torch.no_grad()
def test_the_plain_computation_of_flux1(golden, name):
    data = golden(name)
    config, grid = data.about["config"], tuple(data.about["grid"])
    model = Flux(FluxConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}))
    model.load_state_dict(data.weights())
    t, guidance = torch.tensor([data.about["timesteps"][0]]), torch.tensor([data.about["guidance"]]) if config["guidance_embed"] else None
    stream = ConceptStream(comfyui, model, data["concepts"], t, guidance, cross_attention=True, singles=None)
    given = data["step0.img"], data["txt"], t, grid, data["pooled"], guidance
    assert torch.equal(model(*given, watch=stream.watch, singles=None), model(*given))
    assert stream.complete and len(stream.scores["output"]) == config["depth"] + config["depth_single_blocks"]
    for space, expected in reference(data, DoubleStream(patch=2)).items():
        close(torch.cat(stream.scores[space]), expected)


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def record(tiny: TinyFlux, blocks: str) -> Recording:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return tiny.record(picture, "cat, sand", "sky", blocks=blocks)["output"]


def test_a_choice_of_fewer_blocks_records_the_first_layers_of_more(tiny):
    most = record(tiny, "all")
    assert (most.depth, most.singles) == (5, 2)
    for blocks, singles in (("double", 0), ("double and first single", 1)):
        fewer = record(tiny, blocks)
        assert (fewer.depth, fewer.singles, fewer.layers) == (3 + singles, singles, tuple(range(3 + singles)))
        assert torch.equal(fewer.scores, most.scores[:, :3 + singles])
    picture, drawn = tiny.generate("a cat", "cat", size=(64, 64), steps=2, blocks="all")
    assert drawn.scores.shape[1] == 5 and torch.equal(picture, tiny.draw(["a cat"], [0], size=(64, 64), steps=2))
    with pytest.raises(ValueError, match="blocks is 'single', expected auto, double, double and first single, all"):
        record(tiny, "single")


def test_automatic_layers_are_parts_of_the_double_blocks_and_the_default_number_of_single_ones():
    paper = flux1.DEFAULTS
    assert paper.layers(19) == [15, 16, 17, 18]
    assert paper.layers(20, singles=1) == [15, 16, 17, 18, 19], "who has the first recorded sees it used"
    assert paper.layers(57, singles=38) == [15, 16, 17, 18, 19], "who has all of them recorded sees the first used"
    farther = replace(paper, singles=2)
    assert [farther.layers(19 + n, singles=n)[-1] for n in (0, 1, 2, 38)] == [18, 19, 20, 20]
    assert [farther.singles_of(blocks) for blocks in ("auto", "double", "double and first single", "all")] == [2, 0, 1, None]
    for singles in (-1, 1.0, True):
        with pytest.raises(ValueError, match="singles a whole number"):
            replace(paper, singles=singles)


def test_layers_are_chosen_by_one_numbering(tiny):
    recording = record(tiny, "all")
    alone = saliency(recording, "3", temperature=1.0).maps
    torch.testing.assert_close(alone, recording.scores[0, 3].softmax(1)[:, :2])
    assert torch.equal(saliency(recording, "-2").maps, saliency(recording, "3").maps)
    with pytest.raises(ValueError, match="layers are 0 to 4"):
        saliency(recording, "5")


def test_files_of_before_are_read_and_those_of_now_keep_what_is_new(tmp_path):
    recorder = Recorder(["cat"], [], "flux1", replace(flux1.DEFAULTS, singles=1), [1.0, 0.0], 4, (32, 32), singles=1)
    recorder.add(1.0, {"output": torch.rand(4, 1, 1, 4)})
    made = recorder.finish()["output"]
    made.save(tmp_path / "now.safetensors")
    again = Recording.load(tmp_path / "now.safetensors")
    assert (again.singles, again.defaults, again.depth) == (1, made.defaults, 4) and torch.equal(again.scores, made.scores)

    with safe_open(tmp_path / "now.safetensors", framework="pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["recording"])
    del about["singles"], about["defaults"]["singles"]
    save_file({"scores": made.scores}, tmp_path / "before.safetensors", metadata | {"recording": json.dumps(about)})
    before = Recording.load(tmp_path / "before.safetensors")
    assert before.singles == before.defaults.singles == 0 and before.defaults == replace(made.defaults, singles=0)
    assert saliency(before).maps.shape == (1, 1, 2, 2)


@pytest.mark.parametrize("singles", [-1, 4, 1.0, "1"])
def test_a_damaged_number_of_single_blocks_is_refused(singles):
    recorder = Recorder(["cat"], [], "flux1", flux1.DEFAULTS, [1.0, 0.0], 4, (32, 32), singles=singles)
    recorder.add(1.0, {"output": torch.rand(4, 1, 1, 4)})
    with pytest.raises(ValueError, match="of them single-stream"):
        recorder.finish()


def test_defaults_of_a_model_are_parts_of_its_double_blocks():
    assert Defaults(0.5, 1.0, 0.0, 1.0, True, singles=1).layers(4, 1) == [1, 2, 3]
