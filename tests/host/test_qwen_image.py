"""Qwen-Image: pictures through its VAE, which is one for videos, and layers."""

import inspect

import comfy.model_patcher
import comfy.sd
import pytest
import torch
from comfy.ldm.wan.vae import WanVAE
from concept_saliency.nodes import host
from concept_saliency.nodes.concept_attention_image import ConceptAttentionImage
from conftest import Clip
from small_models import SmallQwen


@pytest.fixture(scope="module")
def small():
    return SmallQwen(SmallQwen.drawn())


@pytest.fixture
def clip(small):
    return Clip(small.width, key="qwen25_7b")


@pytest.fixture(scope="module")
def vae():
    """ComfyUI's own VAE class, with random weights."""
    dim = 8 if "image_channels" in inspect.signature(WanVAE).parameters else 96  # older hosts know its full width alone
    inner = WanVAE(dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True],
                   dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5
               for name, value in inner.state_dict().items()}
    return comfy.sd.VAE(sd=weights, device=torch.device("cpu"), dtype=torch.float32)


def record(small, clip, **given):
    runs = ConceptAttentionImage.execute(small.patcher, clip, "cat, dog", "sky", 0.5, 1, 7, "mean", False,
                                         conditioning=small.conditioning(1), **given).result[0]
    return runs.find(None)[0].recordings["output"]


@torch.no_grad()
def test_a_batch_of_pictures_is_no_video(small, clip, vae):
    pictures = torch.rand(2, 75, 100, 3, generator=torch.Generator().manual_seed(3))
    both = record(small, clip, vae=vae, image=pictures)
    assert both.scores.shape == (1, 4, 2, 3, 5, 7) and both.image_size == (75, 100)
    alone = record(small, clip, vae=vae, image=pictures[:1])
    torch.testing.assert_close(both.scores[:, :, :1], alone.scores, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_latents_with_and_without_the_axis_of_frames(small, clip):
    latent = torch.randn(1, 16, 6, 4, generator=torch.Generator().manual_seed(3))
    flat, deep = (record(small, clip, latent={"samples": samples}) for samples in (latent, latent[:, :, None]))
    assert torch.equal(flat.scores, deep.scores) and flat.image_size == (48, 32)
    with pytest.raises(ValueError, match=r"shape \(1, 16, 3, 6, 4\); expected pictures x 16 channels x height x width"):
        record(small, clip, latent={"samples": latent[:, :, None].expand(-1, -1, 3, -1, -1)})


def test_the_model_that_draws_layers_is_refused():
    try:
        model = SmallQwen.built("QwenImage", {"image_model": "qwen_image", "use_additional_t_cond": True, **SmallQwen.config})
    except TypeError:
        pytest.skip("this ComfyUI has no such model")
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="it is a QwenImage .*Supported: .*Qwen-Image"):
        host.family_of(patcher)
