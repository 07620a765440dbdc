"""Existing pictures on diffusers: one partial pass, and maps that line up with the picture."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from PIL import Image  # noqa: E402
from tiny_diffusers import CONCEPTS, capture, draw, hooks, one_thread, tiny  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families.flux1.diffusers import encode, pack  # noqa: E402
from concept_saliency.core.recording import joined, padded  # noqa: E402
from concept_saliency.headless.image import record_image  # noqa: E402

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PICTURES = torch.rand(2, 3, 75, 100, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def pipe():
    return tiny()


def scores(pipe, image=PICTURES, **how):
    return record_image(pipe, image, CONCEPTS, **how)["output"].scores


@pytest.mark.parametrize("guidance", [True, False])
def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(guidance):
    pipe = tiny(guidance=guidance, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0))
    with torch.no_grad():
        latents = encode(pipe, padded(PICTURES))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    with capture(pipe, CONCEPTS) as recordings:
        draw(pipe, prompt="a dog", height=80, width=112, num_images_per_prompt=2, sigmas=[0.3], num_inference_steps=1,
             latents=pack(0.7 * latents + 0.3 * noise), max_sequence_length=512)
    mine, there = record_image(pipe, PICTURES, CONCEPTS, prompt="a dog", noise_level=0.3, seed=4)["output"], recordings.latest
    torch.testing.assert_close(mine.scores, there.scores, rtol=1e-6, atol=1e-6)
    assert mine.scores.shape == (1, 3, 2, 8, 5, 7)
    assert (mine.progress, mine.layers, mine.depth) == (there.progress, there.layers, there.depth)
    assert mine.sigmas == pytest.approx(there.sigmas) and (mine.image_size, there.image_size) == ((75, 100), (80, 112))


def test_the_pass_stops_in_the_last_double_block_and_nothing_is_left(pipe):
    called = []
    for blocks in (pipe.transformer.transformer_blocks, pipe.transformer.single_transformer_blocks):
        for block in blocks:
            block.register_forward_pre_hook(lambda block, args: called.append(type(block).__name__))
    last = pipe.transformer.transformer_blocks[-1]
    last.ff.register_forward_pre_hook(lambda *seen: called.append("feed-forward of the last block"))
    before, state = hooks(pipe.transformer), torch.get_rng_state()
    scores(pipe, samples=2)
    assert called == ["FluxTransformerBlock"] * 6
    assert hooks(pipe.transformer) == before and torch.equal(torch.get_rng_state(), state)


def test_saliency_of_a_picture(pipe):
    image = Image.fromarray((PICTURES[0].permute(1, 2, 0) * 255).round().byte().numpy())
    how = dict(concepts=["cat", "red dog"], contrast="sky", layers="all", temperature=2.0)
    found = concept_saliency.saliency_of_image(pipe, image, **how)
    assert (found.concepts, found.contrast) == (("cat", "red dog"), ("sky",))
    assert (found.image_size, found.extent) == ((75, 100), (80, 112))
    assert found.pixels(found.maps).shape == (1, 2, 75, 100)
    torch.testing.assert_close(found.maps.sum(1) + found.contrast_maps.sum(1), torch.ones(1, 5, 7))
    image.putalpha(100)
    assert torch.equal(concept_saliency.saliency_of_image(pipe, image, **how).maps, found.maps), "transparency is dropped"


def test_a_large_picture_is_shown_reduced_and_its_maps_have_its_own_size(pipe):
    large = torch.nn.functional.interpolate(PICTURES, scale_factor=4)
    found = record_image(pipe, large, CONCEPTS, megapixels=96 * 128 / 2**20)["output"]
    assert (found.image_size, found.seen_size, found.scores.shape) == ((300, 400), (96, 128), (1, 3, 2, 8, 6, 8))
    maps = found.saliency()
    assert maps.image_size == maps.extent == (300, 400) and maps.pixels(maps.maps).shape == (2, 2, 300, 400)
    reduced = torch.nn.functional.interpolate(large, size=(96, 128), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(found.scores, scores(pipe, reduced))
    assert scores(pipe, large, megapixels=0).shape[-2:] == (19, 25)


def test_pictures_are_turned_upright_and_progress_is_told(pipe, tmp_path):
    upright = Image.fromarray((PICTURES[0].permute(1, 2, 0) * 255).round().byte().numpy())
    exif = Image.Exif()
    exif[0x112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    told = []
    with Image.open(tmp_path / "a.png") as turned:
        assert torch.equal(scores(pipe, turned, samples=2, progress=lambda blocks: told.append(len(blocks)) or map(told.append, blocks)),
                           scores(pipe, upright, samples=2))
    assert len(told) == 7 and told[0] == 6, "three blocks, twice"


def test_samples_are_recorded_side_by_side(pipe):
    both = record_image(pipe, PICTURES, CONCEPTS, samples=2, seed=4, cross_attention=True)
    apart = [record_image(pipe, PICTURES, CONCEPTS, seed=seed, cross_attention=True) for seed in (4, 5)]
    for space in ("output", "cross-attention"):
        one = joined([recordings[space] for recordings in apart])
        assert torch.equal(both[space].scores, one.scores) and both[space].sigmas == one.sigmas == (0.5, 0.5)
    assert scores(pipe, seed=2**64 - 1, samples=2).shape[0] == 2


def test_models_that_see_more(pipe):
    plain = scores(pipe)
    assert torch.equal(scores(tiny(diffusers.FluxKontextPipeline)), plain)
    assert scores(tiny(diffusers.FluxFillPipeline, in_channels=384)).shape == plain.shape
    with pytest.raises(ValueError, match="128 channels a token, expected 64 .* or 384"):
        scores(tiny(diffusers.FluxControlPipeline, in_channels=128))


def test_a_step_cache_does_not_take_one_picture_for_the_next(pipe):
    plain = scores(pipe, samples=2)
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
    for _ in range(2):
        assert torch.equal(scores(pipe, samples=2), plain)


def test_noise_levels_at_the_ends_and_half_precision(pipe):
    for level in (0.0, 1.0):
        assert scores(pipe, noise_level=level).isfinite().all()
    half = scores(pipe.to(torch.bfloat16))
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_offloading(pipe):
    pytest.importorskip("accelerate", reason="accelerate is not installed").cpu_offload(pipe.transformer, execution_device="cpu")
    assert torch.equal(scores(pipe), scores(tiny()))


@pytest.mark.parametrize("how, message", [
    ({"image": torch.rand(3, 64, 64)}, r"a tensor of shape \(3, 64, 64\), expected a PIL picture"),
    ({"image": "cat.png"}, "image is a str"),
    ({"image": PICTURES[:0]}, r"a tensor of shape \(0, 3, 75, 100\)"),
    ({"image": (PICTURES * 255).byte()}, r"image holds torch.uint8, .* in 0..1. Give image / 255."),
    ({"image": PICTURES * 255}, r"numbers from 0.* to 25.*, .* in 0..1. Give image / 255."),
    ({"image": PICTURES * 2 - 1}, r"numbers from -0.99.* to 0.99.*, .* in 0..1. Give \(image \+ 1\) / 2."),
    ({"image": PICTURES * torch.nan}, "numbers from nan to nan"),
    ({"megapixels": -1.0}, "megapixels is -1, expected 0"),
    ({"noise_level": 1.5}, "expected a level of 0 to 1"),
    ({"samples": 0}, "at least one sample"),
])
def test_refusals(pipe, how, message):
    with pytest.raises(ValueError, match=message):
        scores(pipe, **how)
    assert hooks(pipe.transformer) == 0


def test_the_example_runs(tmp_path, monkeypatch):
    import runpy
    from pathlib import Path

    pipe = tiny()
    pipe.default_sample_size = 8
    example = runpy.run_path(Path(__file__).parent.parent / "headless" / "example.py")
    monkeypatch.setattr("diffusers.FluxPipeline.from_pretrained", lambda *args, **kwargs: pipe)
    example["main"]("tiny", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"recording.safetensors", "choices.png", "mask_cat.png", "mask_dog.png"}
