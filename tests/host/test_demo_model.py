"""The bundled weights in the host: recognised as what they are, and the same model as without ComfyUI."""

import comfy.ldm.flux.model
import comfy.sd
import comfy.taesd.taesd
import pytest
import torch
from comfyui_version import __version__
from concept_saliency.demo.flux import Flux, pack, unpack
from concept_saliency.demo.pipeline import WEIGHTS
from concept_saliency.demo.text import TextEncoder, Tokenizer, pad
from concept_saliency.demo.world import make_scene
from concept_saliency.nodes import demo_model, host
from safetensors.torch import load_file

OWN_DETECTION = pytest.mark.skipif(__version__ == "0.3.64", reason="this ComfyUI's detection takes every Flux for one of width 3072")


@pytest.fixture(scope="module")
def headless() -> Flux:
    flux = Flux()
    flux.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS / "flux.safetensors").items()})
    return flux.eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 12, 20, generator=generator), torch.randn(2, 16, 256, generator=generator), torch.tensor([0.7, 0.7])


@torch.no_grad()
def test_the_node_s_model_predicts_what_the_headless_one_predicts(headless, inputs):
    x, text, t = inputs
    model = demo_model.load_model()
    img, grid = pack(x)
    expected = unpack(headless(img, text, t, grid), grid)
    mine = model.model.diffusion_model(x, t, text, torch.zeros(2, 64))
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
    assert host.family_of(model).NAME == "flux1"


@OWN_DETECTION
@torch.no_grad()
def test_the_host_s_own_detection_loads_the_weights_as_flux(headless, inputs):
    model = comfy.sd.load_diffusion_model(str(WEIGHTS / "flux.safetensors"), model_options={"dtype": torch.float32})
    assert type(model.model).__name__ == "Flux" and type(model.model.diffusion_model) is comfy.ldm.flux.model.Flux
    x, text, t = inputs
    img, grid = pack(x)
    torch.testing.assert_close(model.model.diffusion_model(x, t, text, torch.zeros(2, 64)), unpack(headless(img, text, t, grid), grid),
                               rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_clip_encodes_as_the_headless_text_encoder_does():
    clip, encoder = demo_model.load_clip(), TextEncoder(len(Tokenizer()))
    encoder.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS / "text.safetensors").items()})
    for text in ("a dragon and a house on grass", "", "cat"):
        [[cond, more]] = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        torch.testing.assert_close(cond, encoder.eval()(pad([Tokenizer()(text)])), rtol=1e-5, atol=1e-5)
        assert not more["pooled_output"].any()
    phrase = host.phrase_encoder(clip, host.family_of(demo_model.load_model()))("a cat on sand")
    assert phrase.shape == (4, 256), "the phrase's own words, no padding"
    with pytest.raises(ValueError, match="does not know 'dog'. It knows: a, an, and, apple"):
        clip.tokenize("a dog on sand")


@torch.no_grad()
def test_the_vae_is_recognised_and_gives_flux_latents_that_decode_to_the_picture():
    vae = demo_model.load_vae()
    assert isinstance(vae.first_stage_model, comfy.taesd.taesd.TAESD) and vae.latent_channels == 16
    pictures = torch.stack([torch.from_numpy(make_scene(seed).image.copy()) for seed in range(1_000_000, 1_000_008)]).float() / 255
    latents = vae.encode(pictures)
    seen_by_the_model = demo_model.load_model().model.process_latent_in(latents)
    assert seen_by_the_model.mean().abs() < 0.3 and 0.8 < seen_by_the_model.std() < 1.2  # of eight pictures
    error = (vae.decode(latents) - pictures).square().mean()
    assert -10 * torch.log10(error) > 25, "decibels"
