"""Existing pictures, and what is made of saliency further down the chain."""

import json

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_api.latest import io
from concept_saliency.core.recording import joined, padded
from concept_saliency.nodes import capture, demo_model
from concept_saliency.nodes.concept_attention_image import ConceptAttentionImage
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from concept_saliency.nodes.saliency_overlay import ConceptSaliencyOverlay
from concept_saliency.nodes.saliency_segmentation import ConceptSaliencySegmentation
from concept_saliency.nodes.saliency_to_mask import ConceptSaliencyToMask
from concept_saliency.nodes.saliency_to_segs import ConceptSaliencyToSEGS
from conftest import SmallFlux


def whole_of(picture: torch.Tensor) -> torch.Tensor:
    """80 x 112 pixels."""
    return padded(picture.movedim(-1, 1)).movedim(1, -1)


@pytest.fixture(scope="module")
def vae():
    return demo_model.load_vae()


@pytest.fixture
def picture():
    return torch.rand(1, 75, 100, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def record(flux, clip, vae, picture):
    def run(image=None, concepts="cat, dog", noise_level=0.5, samples=1, seed=4, model=None, conditioning=None, megapixels=1.0, **given):
        given = given or {"vae": vae, "image": picture if image is None else image}
        return ConceptAttentionImage.execute(model or flux.patcher, clip, concepts, "sky", noise_level, samples, seed, "mean", False,
                                             megapixels, conditioning=conditioning or flux.conditioning(1), **given).result[0]

    return run


@pytest.fixture
def saliency(record):
    return ConceptSaliency.execute(record(), "all", 0.0, 1.0, "output", 0.0).result[0]


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(flux, apply, record, vae, picture):
    mine = record().find(None)[0].recordings["output"]
    assert mine.image_size == (75, 100) and mine.scores.shape == (1, 4, 1, 3, 5, 7)
    model, runs = apply()
    latent = vae.encode(whole_of(picture))
    comfy.sample.sample_custom(model, comfy.sample.prepare_noise(latent, 4), 1.0, comfy.samplers.sampler_object("euler"),
                               torch.tensor([0.5, 0.0]), flux.conditioning(1), flux.conditioning(2), latent, disable_pbar=True)
    torch.testing.assert_close(mine.scores, runs.find(None)[0].recordings["output"].scores, rtol=1e-5, atol=1e-5)


def test_the_pass_stops_after_the_last_double_block(flux, record, monkeypatch):
    called = []
    transformer = flux.patcher.model.diffusion_model
    for name in ("single_blocks", "double_blocks"):
        for block in getattr(transformer, name):
            monkeypatch.setattr(block, "forward", lambda *a, _f=block.forward, _n=name, **k: (called.append(_n), _f(*a, **k))[1])
    record(samples=2)
    assert called == ["double_blocks"] * 8


def test_samples_are_recorded_side_by_side(record):
    both = record(samples=2, seed=4).find(None)[0].recordings["output"]
    apart = joined([record(seed=s).find(None)[0].recordings["output"] for s in (4, 5)])
    assert torch.equal(both.scores, apart.scores) and both.sigmas == apart.sigmas == (0.5, 0.5)


def test_a_latent_in_place_of_a_picture(record, vae, picture):
    whole = whole_of(picture)  # 80 x 112
    latent = {"samples": vae.encode(whole)}
    mine, same = (r.find(None)[0].recordings["output"] for r in (record(latent=latent), record(whole)))
    assert torch.equal(mine.scores, same.scores) and mine.image_size == (80, 112)
    odd = record(latent={"samples": torch.randn(2, 16, 9, 13)}).find(None)[0].recordings["output"]
    assert odd.image_size == (72, 104) and odd.scores.shape[2:] == (2, 3, 5, 7)
    for given, message in (({"latent": latent, "vae": vae}, "Both a picture and a latent"), ({"vae": vae}, "no picture to look at"),
                           ({"latent": {"samples": torch.zeros(1, 4, 8, 8)}}, "pictures x 16 channels x height x width")):
        with pytest.raises(ValueError, match=message):
            record(**given)


def test_fill_and_kontext_models(golden, flux, record, vae, picture):
    plain = record().find(None)[0].recordings["output"].scores
    latent = vae.encode(whole_of(picture))
    fill = SmallFlux(golden("flux1_dev_like"), in_channels=96)  # 16, the picture's 16 and the mask's 64
    text = fill.conditioning(1, concat_latent_image=latent, concat_mask=torch.ones(1, 1, 80, 112))
    scores = [record(model=fill.patcher, conditioning=c).find(None)[0].recordings["output"].scores for c in (text, fill.conditioning(1))]
    assert scores[0].shape == scores[1].shape == plain.shape and not torch.equal(*scores), "the picture to fill is seen"
    referring = flux.conditioning(1, reference_latents=[latent, latent[..., :6]])
    seen = record(conditioning=referring).find(None)[0].recordings["output"].scores
    assert seen.shape == plain.shape and not torch.equal(seen, plain), "the references are seen, and have no place in the map"


def test_a_model_with_a_sampler_s_concepts_is_looked_into_without_them(apply, record):
    model, runs = apply("moon")
    expected = record().find(None)[0].recordings["output"].scores
    assert torch.equal(record(model=model).find(None)[0].recordings["output"].scores, expected)
    assert not runs._runs and model.get_wrappers("outer_sample", capture.KEY), "nor does it forget them"


def test_batches_and_noise_levels_at_the_ends(record, picture):
    batch = torch.cat((picture, picture.flip(2)))
    for level in (0.0, 1.0):
        assert record(batch, noise_level=level).find(None)[0].recordings["output"].scores.shape[2] == 2
    with pytest.raises(ValueError, match="expected at least one picture"):
        record(picture[:0])


def test_masks_follow_the_picture_s_size(saliency, picture):
    for image in (picture, picture.repeat_interleave(2, 1).repeat_interleave(2, 2)):
        mask, presence = ConceptSaliencyToMask.execute(saliency, "", "otsu", 0.5, 2, 3, True, 4, False, image).result
        assert mask.shape == image.shape[:3] and 0 <= presence <= 1
    assert ConceptSaliencyToMask.execute(saliency, "dog + cat", "mean", 0.5, 0, 0, False, 0, True).result[0].shape == (1, 75, 100)


def test_the_largest_seed_and_pictures_with_transparency(record, picture):
    clear = torch.cat((picture, torch.rand(1, 75, 100, 1)), -1)
    runs = record(clear, samples=2, seed=2**64 - 1)
    saliency = ConceptSaliency.execute(runs, "all", 0.0, 1.0, "output", 0.0, image=clear).result[0]
    assert ConceptSaliencyOverlay.execute(saliency, clear, "plasma", 0.8, False).result[0].shape == (2, 75, 100, 3)
    assert ConceptSaliencyToMask.execute(saliency, "", "mean", 0.5, 0, 0, False, 0, False, clear).result[0].shape == (1, 75, 100)
    assert ConceptSaliencySegmentation.execute(saliency, clear).result[1].shape == (2, 75, 100)


def test_overlay_and_segmentation(saliency, picture):
    overlay = ConceptSaliencyOverlay.execute(saliency, picture, "plasma", 0.8, False).result[0]
    assert overlay.shape == (2, 75, 100, 3) and overlay.min() >= 0 and overlay.max() <= 1
    assert ConceptSaliencyOverlay.execute(saliency, picture, "hot", 0.8, True).result[0].shape[1] > 75
    label, masks = ConceptSaliencySegmentation.execute(saliency, picture).result
    assert masks.shape == (2, 75, 100) and masks.sum(0).max() <= 1 and label.shape[2] == 100


def test_segs_have_impact_pack_s_form(saliency, picture):
    (height, width), segments = ConceptSaliencyToSEGS.execute(saliency, picture, 2.0).result[0][0]
    assert (height, width) == (75, 100)
    for segment in segments:
        x1, y1, x2, y2 = segment.crop_region
        assert segment.cropped_image.shape == (1, y2 - y1, x2 - x1, 3) and segment.cropped_mask.shape == (y2 - y1, x2 - x1)
        assert segment.label in ("cat", "dog") and 0 <= segment.confidence <= 1 and segment.control_net_wrapper is None
        assert 0 <= x1 <= segment.bbox[0] < segment.bbox[2] <= x2 <= 100 and 0 <= y1 <= segment.bbox[1] < segment.bbox[3] <= y2 <= 75


def test_two_cats_that_touch_are_one_island_and_two_instances():
    """On the token grid: two squares of 4 x 4 tokens that one token joins, and the dog's square by itself."""
    from concept_saliency.core.saliency import Saliency

    maps = torch.zeros(1, 2, 8, 16)
    maps[0, 0, 2:6, 1:5] = maps[0, 0, 2:6, 6:10] = maps[0, 0, 3, 5] = maps[0, 1, 2:6, 12:15] = 0.9
    made = Saliency(("cat", "dog"), maps, (128, 256), (128, 256), maps.amax((2, 3)), ("sky",), torch.full((1, 1, 8, 16), 0.3))
    picture = (maps.amax(dim=1) > 0).float().repeat_interleave(16, 1).repeat_interleave(16, 2)[..., None].expand(-1, -1, -1, 3)
    together, whole = ConceptSaliencySegmentation.execute(made).result
    apart, single = ConceptSaliencySegmentation.execute(made, instances=True).result
    assert whole.shape == (2, 128, 256) and single.shape == (3, 128, 256) and torch.equal(single[:2].sum(0), whole[0])
    assert torch.equal(single[2], whole[1]) and not torch.equal(apart[:, :128], together[:, :128])
    assert sorted(float(mask.nonzero()[:, 1].float().mean() > 88) for mask in single[:2]) == [0, 1], "one to each side of the neck"
    for instances, labels in ((False, ["cat", "dog"]), (True, ["cat", "cat", "dog"])):
        (_, segments), = ConceptSaliencyToSEGS.execute(made, picture, 1.0, instances).result[0]
        assert [segment.label for segment in segments] == labels


@pytest.mark.skipif(not hasattr(io, "BoundingBox"), reason="this ComfyUI has no BOUNDING_BOX and no SAM3")
def test_sam3_prompts_are_what_its_node_reads():
    from concept_saliency.core.saliency import Saliency
    from concept_saliency.nodes.saliency_to_sam3 import ConceptSaliencyToSAM3

    maps = torch.zeros(1, 3, 5, 7)
    maps[0, 0, 1, 2], maps[0, 1, 3, 5] = 0.9, 0.8
    made = Saliency(("cat", "dog", "horse"), maps, (75, 100), (80, 112), maps.amax((2, 3)), ("sky",), 0.3 * torch.ones(1, 1, 5, 7))
    positive, negative, bboxes = ConceptSaliencyToSAM3.execute(made, "cat", 3).result
    (point,), rivals, (box,) = json.loads(positive), json.loads(negative), bboxes[0]
    assert abs(point["x"] - 40) <= 8 and abs(point["y"] - 24) <= 8, "the middle of the cat's token"
    assert any(abs(p["x"] - 88) <= 8 and abs(p["y"] - 56) <= 8 for p in rivals), "the dog is what the cat is not"
    assert box["x"] <= point["x"] < box["x"] + box["width"] and box["y"] <= point["y"] < box["y"] + box["height"]
    with pytest.raises(ValueError, match="'horse' wins no place"):
        ConceptSaliencyToSAM3.execute(made, "horse", 3, "error")
    assert ConceptSaliencyToSAM3.execute(made, "horse", 3).result == ("[]", "[]", [[]]), "a run over many pictures goes on"


def test_segs_of_a_batch_are_one_list_a_picture(saliency, picture):
    from dataclasses import replace

    batch = replace(saliency, **{name: torch.cat([getattr(saliency, name)] * 2) for name in ("maps", "contrast_maps", "presence")})
    [alone] = ConceptSaliencyToSEGS.execute(saliency, picture, 2.0).result[0]
    both = ConceptSaliencyToSEGS.execute(batch, picture.expand(2, -1, -1, -1), 2.0).result[0]
    assert [size for size, _ in both] == [(75, 100)] * 2
    assert [[s.bbox for s in segments] for _, segments in both] == [[s.bbox for s in alone[1]]] * 2


def test_a_large_picture_is_shown_small_and_its_maps_have_its_own_size(record, vae):
    large = torch.rand(1, 3, 20, 30).repeat_interleave(20, 2).repeat_interleave(20, 3).movedim(1, -1)  # 400 x 600
    recording = record(large, megapixels=0.02).find(None)[0].recordings["output"]
    assert recording.image_size == (400, 600) and recording.scores.shape[-2:] == (7, 10)
    maps = ConceptSaliency.execute(record(large, megapixels=0.02), "all", 0.0, 1.0, "output", 0.0).result
    assert maps[0].image_size == (400, 600) and maps[2].shape == (2, 400, 600)
    assert record(large, megapixels=0.0).find(None)[0].recordings["output"].scores.shape[-2:] == (25, 38)
    with pytest.raises(ValueError, match="megapixels is -1, expected 0"):
        record(large, megapixels=-1.0)


def test_what_is_said_about_a_mask():
    from concept_saliency.core.masks import Shaping
    from concept_saliency.nodes.saliency_to_mask import findings

    assert findings("cat", [0.9], [0.25], "auto", 0.5) == ([], ["'cat': presence 0.90, 25% of the picture"])
    warnings, remarks = findings("cat", [0.9, 0.1], [0.25, 0.0], "otsu", 0.8)
    assert len(warnings) == 2 and "empty in picture 2" in warnings[0] and "Try" in warnings[1]
    assert remarks[1] == "'threshold' is for the methods percentile and absolute only; otsu does not use it."
    assert "otsu" not in warnings[1], "it is the method already"
    for method, shaping, advice in (("auto", {}, "or the method otsu"), ("absolute", {}, "above the threshold of 0.8: lower it"),
                                    ("auto", {"min_area": 9}, "set them to 0"), ("mean", {"grow": -1}, "set them to 0")):
        assert advice in findings("cat", [0.1], [0.0], method, 0.8, Shaping(**shaping))[0][1]
    assert "may not be in the picture: presence is 0.20" in findings("cat", [0.2], [0.25], "mean", 0.5)[0][0]


def test_saved_saliency_comes_back_and_only_from_comfyui_s_folders(saliency, tmp_path, monkeypatch):
    import folder_paths
    from concept_saliency.nodes.saliency_files import ConceptSaliencyLoad, ConceptSaliencySave

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "secret.safetensors").write_bytes(b"")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "link").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(Exception, match="outside the output folder"):  # the host's own guard
        ConceptSaliencySave.execute(saliency, "../../one")
    ConceptSaliencySave.execute(saliency, "maps/one")
    again = ConceptSaliencyLoad.execute("maps/one_00001_.safetensors [output]").result[0]
    assert torch.equal(again.maps, saliency.maps) and again.concepts == saliency.concepts
    for name, message in (("../secret.safetensors", "not a file inside"), (str(tmp_path / "secret.safetensors"), "not a file inside"),
                          ("", "not a file inside"), ("a/../../secret.safetensors", "not a file inside"), ("..", "not a file inside"),
                          ("/", "not a file inside"), (".. [output]", "not a file inside"),
                          ("../secret.safetensors [temp]", "not a file inside"),
                          ("link", "not a file inside"), ("\0", "no file"), ("x" * 5000, "no file"),
                          ("missing.safetensors", "There is no file")):
        with pytest.raises(ValueError, match=message):
            ConceptSaliencyLoad.execute(name)
