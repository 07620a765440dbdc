"""Families that draw videos: frames, a plain second computation, existing pictures and videos. A new one is one entry in CASES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import comfy.supported_models
import concept_saliency.nodes.concept_saliency
import pytest
import torch
from concept_saliency.core.families import FAMILIES
from concept_saliency.core.render import overlay
from concept_saliency.core.saliency import Saliency, presence
from concept_saliency.nodes import host, saliency_to_mask
from concept_saliency.nodes.concept_attention_image import ConceptAttentionImage
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from concept_saliency.nodes.saliency_overlay import ConceptSaliencyOverlay
from concept_saliency.nodes.saliency_segmentation import ConceptSaliencySegmentation
from conftest import Clip
from oracle import traces
from reference_video import HunyuanVideo, Wan
from small_models import SmallHunyuanVideo, SmallHunyuanVideo15, SmallWan, SmallWan22, SmallWanOfAPicture
from test_families import Probe, newest, patched

TOLERANCE = 2e-4  # of the largest value


@dataclass(frozen=True)
class Case:
    """One family. more: what else its prompts may hold, by names of conditioning; seen: the reference's name for what comes of it.
    unlike: what a model of the same class has that is not of the family."""

    family: str
    model: Callable
    reference: HunyuanVideo | Wan
    text_key: str
    there: bool = True
    more: Callable = dict
    seen: tuple[tuple[str, str], ...] = ()
    grid: tuple[int, int] = (6, 4)
    unlike: tuple[str, object] = ("patch_size", (2, 2, 2))


def letters_and_a_first_picture():
    generator = torch.Generator().manual_seed(4)
    return dict(conditioning_byt5small=torch.randn(1, 4, 1472, generator=generator),
                clip_vision_output=SimpleNamespace(last_hidden_state=torch.randn(1, 5, 20, generator=generator)))


def a_first_picture():
    generator = torch.Generator().manual_seed(4)
    return dict(clip_vision_output=SimpleNamespace(penultimate_hidden_states=torch.randn(1, 5, 1280, generator=generator)))


CASES = {
    "hunyuan video": Case("hunyuan_video", SmallHunyuanVideo, HunyuanVideo(2), "llama"),
    "hunyuan video 1.5": Case("hunyuan_video15", SmallHunyuanVideo15, HunyuanVideo(1), "qwen25_7b",
                              hasattr(comfy.supported_models, "HunyuanVideo15"), letters_and_a_first_picture,
                              (("txt_byt5", "byt5"), ("clip_fea", "vision")), (3, 5)),
    "wan": Case("wan", SmallWan, Wan(), "umt5xxl", grid=(5, 8), unlike=("ref_conv", "a layer for a reference picture")),
    "wan of a picture": Case("wan", SmallWanOfAPicture, Wan(), "umt5xxl", more=a_first_picture, seen=(("clip_fea", "vision"),),
                             unlike=("out_dim", 20)),
    "wan 2.2": Case("wan22", SmallWan22, Wan(), "umt5xxl", unlike=("out_dim", 20)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    if not CASES[request.param].there:
        pytest.skip("not on this host")
    return CASES[request.param]


@pytest.fixture(scope="module")
def data(case):
    return case.model.drawn()


@pytest.fixture(scope="module")
def small(case, data):
    return case.model(data)


@pytest.fixture
def clip(case, small):
    return Clip(small.width, key=case.text_key)


def test_every_family_that_draws_videos_has_a_case():
    assert {case.family for case in CASES.values()} == {name for name, family in FAMILIES.items() if hasattr(family, "COMPRESSION")}


class VideoProbe(Probe):
    """The same of a case, whose prompts may hold more."""

    def __init__(self, model, case):
        super().__init__(model)
        self.case = case

    def see(self, transformer, args, kwargs) -> None:
        kinds, x = kwargs["transformer_options"]["cond_or_uncond"], args[0]
        clips = len(x) // len(kinds)
        for row in range(len(x)):
            if kinds[row // clips] == 0:
                names = (("context", "text"), ("guidance", "guidance"), ("y", "pooled"), *self.case.seen)
                given = {mine: kwargs[name][row] for name, mine in names if kwargs.get(name) is not None}
                self.seen.setdefault(float(kwargs["transformer_options"]["sigmas"][0]), []).append(dict(latent=x[row], t=args[1][row],
                                                                                                        **given))

    def check(self, data, clip, runs, **more) -> None:
        """What was recorded is what the reference computes of the same inputs."""
        vectors = torch.stack([clip.encode_from_tokens(clip.tokenize(concept))[0, 0] for concept in ("cat", "dog", "sky")])
        assert set(runs.find(None)[0].recordings) == set(self.case.reference.spaces)
        for space in self.case.reference.spaces:
            recording = newest(runs, space)
            scores = recording.scores.unflatten(2, (-1, recording.frames)).movedim(3, 4).flatten(4)  # S x L x clips x C x N
            for step, sigma in enumerate(recording.sigmas):
                assert len(self.seen[sigma]) == scores.shape[2]
                for number, inputs in enumerate(self.seen[sigma]):
                    expected = self.case.reference.scores(data.weights(), data.about["config"], concepts=vectors, **inputs, **more)[space]
                    assert scores[step, :, number].shape == expected.shape
                    error = (scores[step, :, number] - expected).abs().max() / expected.abs().max()
                    assert error <= TOLERANCE, f"{space}, noise level {sigma:.3f}, clip {number}: {error:.1e}"


@pytest.mark.parametrize("name, blocks", [("plain", "auto"), ("plain", "all"), ("two clips, cfg 4", "auto"), ("more", "auto")])
@torch.no_grad()
def test_the_video_does_not_change_and_scores_are_those_of_the_plain_computation(case, data, small, clip, name, blocks):
    count = case.model.config.get("depth_single_blocks", 0)
    if (name == "more" and case.more is dict) or (blocks == "all" and not count):
        pytest.skip("has none")
    settings = dict(size=case.grid, steps=2) | (dict(batch=2, cfg=4.0) if name.startswith("two") else {})
    singles = count if blocks == "all" else 0
    positive, probe = small.conditioning(1, **(case.more() if name == "more" else {})), VideoProbe(small.patcher, case)
    plain = small.sample(small.patcher, positive=positive, **settings)
    model, runs = patched(probe.model, clip, blocks=blocks)
    assert torch.equal(small.sample(model, positive=positive, **settings), plain)
    recording = newest(runs, case.reference.spaces[0])
    grid = tuple(-(-side // case.reference.patch) for side in case.grid)
    assert recording.scores.shape[2:] == (3 * len(plain), 3, *grid) and (recording.frames, recording.compression) == (3, 4)
    pixels = FAMILIES[case.family].PIXELS // FAMILIES[case.family].PATCH
    assert recording.image_size == tuple(side * pixels for side in case.grid) and recording.family == case.family
    assert (recording.depth, recording.singles) == (recording.scores.shape[1], singles)
    probe.check(data, clip, runs, **({"singles": singles} if count else {}))
    assert not traces(small.patcher)


@torch.no_grad()
def test_maps_have_the_videos_frames_and_a_space_that_is_not_there_is_named(case, small, clip, monkeypatch):
    said = []
    monkeypatch.setattr(concept_saliency.nodes.concept_saliency, "tell", lambda node, warnings, remarks: said.append((warnings, remarks)))
    model, runs = patched(small.patcher, clip)
    latent = small.sample(model, size=case.grid, steps=1)
    video = torch.rand(9, 8 * case.grid[0], 8 * case.grid[1], 3)  # 3 latent frames: 1 + 4 + 4
    saliency, heatmaps, masks = ConceptSaliency.execute(runs, "all", 0.0, 1.0, "output", 0.0, {"samples": latent}, video).result
    only = [] if "output" in case.reference.spaces else ["In this model text has no stream of its own, so there is no space 'output': "
                                                         "these maps are of the space 'cross-attention', the only one it has."]
    assert said == [([], only)]
    assert saliency.frames == 9 and saliency.maps.shape[:2] == (9, 2)
    assert heatmaps.shape == (18, *video.shape[1:]) and masks.shape == (18, *video.shape[1:3])
    with pytest.raises(ValueError, match=r"holds 3 pictures, but 9 \(9 frames a clip\) were recorded"):
        ConceptSaliency.execute(runs, "all", 0.0, 1.0, "output", 0.0, {"samples": latent}, video[:3])


@pytest.mark.parametrize("frames", [None, 1, 3])
@torch.no_grad()
def test_existing_pictures_and_videos_are_read_in_one_partial_pass(case, data, small, clip, monkeypatch, frames):
    """frames: of a latent; None for a latent of pictures, each of which is a video of one frame."""
    probe, settings = VideoProbe(small.patcher, case), dict(generator=torch.Generator().manual_seed(3))
    shape = (small.channels, *case.grid) if frames is None else (small.channels, frames, *case.grid)
    latent = torch.randn(2 if frames is None else 1, *shape, **settings)
    transformer = small.patcher.model.diffusion_model
    last = next(getattr(transformer, name) for name in ("final_layer", "head") if hasattr(transformer, name))
    monkeypatch.setattr(last, "forward", lambda *args, **kwargs: pytest.fail("the pass did not stop where all had been seen"))
    runs = ConceptAttentionImage.execute(probe.model, clip, "cat, dog", "sky", 0.5, 1, 7, "mean", True, latent={"samples": latent},
                                         conditioning=small.conditioning(1)).result[0]
    recording = newest(runs, case.reference.spaces[0])
    assert recording.frames == (frames or 1) and len(recording.scores[0, 0]) == (frames or 2) and recording.sigmas == (0.5,)
    probe.check(data, clip, runs)
    monkeypatch.undo()
    assert not traces(small.patcher)


@torch.no_grad()
def test_windows_over_a_video_are_not_recorded_and_said_so(case, small, clip):
    """ComfyUI's context windows give a model some frames of the latent at a time, here one, and newer ones the frame before it."""
    import comfy.context_windows as windows

    if case.model.config.get("in_dim", case.model.config.get("in_channels")) != small.channels:
        pytest.skip("older hosts do not cut into windows what else a model is shown")
    handler = windows.IndexListContextHandler(context_schedule=windows.get_matching_context_schedule("standard_static"),
                                              fuse_method=windows.get_matching_fuse_method("pyramid"), context_length=1, context_overlap=0,
                                              dim=2)
    model = small.patcher.clone()
    model.model_options["context_handler"] = handler
    model, runs = patched(model, clip)
    small.sample(model, size=case.grid, steps=1)
    with pytest.raises(ValueError, match="nothing was recorded.*Context windows"):
        ConceptSaliency.execute(runs, "all", 0.0, 1.0, "output", 0.0)


def test_what_is_not_for_this_family_is_refused_by_name(case, small, clip):
    model, transformer = small.patcher.clone(), small.patcher.model.diffusion_model
    assert case.family == host.family_of(model).NAME
    other = torch.nn.Module.__new__(type(transformer))
    vars(other).update({**vars(transformer), case.unlike[0]: case.unlike[1]})
    model.add_object_patch("diffusion_model", other)
    with pytest.raises(ValueError, match=f"cannot look into this model.*{type(transformer).__name__}.*Supported"):
        patched(model, clip)


def test_nodes_give_a_videos_frames_in_order_and_show_a_few(monkeypatch):
    """A dog that appears in the second of three latent frames: 1 + 4 + 4 of the video's."""
    said, maps = [], torch.full((9, 2, 4, 4), 0.1)
    maps[1:5, 1, :2] = 0.9
    monkeypatch.setattr(saliency_to_mask, "tell", lambda node, warnings, remarks: said.append((warnings, remarks)))
    shown = Saliency(("cat", "dog"), maps, (64, 64), (64, 64), presence(maps), (), maps[:, :0], frames=9)
    video = torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    out = saliency_to_mask.ConceptSaliencyToMask.execute(shown, "dog", "absolute", 0.5, 0, 0, False, 0, False, video)
    mask, there = out.result
    assert mask.shape == (9, 32, 32) and [bool(frame.any()) for frame in mask] == [False, *[True] * 4, *[False] * 4]
    assert there == pytest.approx(0.9) and len(out.ui["images"]) == len(out.ui["concept_explorer"][0]["pictures"]) == 8
    share = float(mask.mean())
    assert said == [([], [f"'dog': presence 0.90, {share:.0%} of the clip, in 4 of 9 frames"])]
    said.clear()
    saliency_to_mask.ConceptSaliencyToMask.execute(shown, "cat", "absolute", 0.5, 0, 0, False, 0, False)
    assert said[0][0][0] == "The mask of 'cat' is empty (presence 0.10)."
    over = ConceptSaliencyOverlay.execute(shown, video, "plasma", 0.8, False)
    assert over.result[0].shape == (18, 32, 32, 3) and len(over.ui.as_dict()["images"]) == 16
    heat = shown.at_size((32, 32)).pixels(maps)[:, 1]
    for frame in (0, 3):
        assert torch.equal(over.result[0][2 * frame + 1], overlay(video[frame:frame + 1], heat[frame:frame + 1])[0])
    label, masks = ConceptSaliencySegmentation.execute(shown, video).result
    assert len(label) == 9 and masks.shape == (18, 32, 32)
