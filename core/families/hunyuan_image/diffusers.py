"""HunyuanImage 2.1 in diffusers' naming (HunyuanImageTransformer2DModel). See comfyui.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flux1.diffusers import block, blocks, hooked, keys, rotations
from ..hunyuan_video.diffusers import PICTURE_ROPE, refined
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PICTURE_ROPE", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits",
           "hooked", "keys", "reading", "rotations"]


def fits(model: Layers) -> bool:
    """See comfyui.fits."""
    return list(model.config.patch_size) == [PATCH, PATCH] and not model.config.use_meanflow


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See HunyuanVideo's, without a pooled vector. timesteps in 0..1, guidance a thousandfold: one a picture, B."""
    vec = model.time_guidance_embed((1000 * timesteps).to(vectors.dtype), guidance=guidance)  # rounded, as its pipeline does
    return refined(model, vectors, timesteps), vec, None


def drawing(model: Layers) -> dict:
    """See Flux.1's."""
    return {"num_inference_steps": 50}


def called(given: dict) -> tuple[tuple[int, int], Tensor, Tensor | None]:
    """Rows and columns of the picture's tokens, noise levels in 0..1 and guidance, of what the transformer is given."""
    height, width = given["hidden_states"].shape[-2:]
    return (height // PATCH, width // PATCH), given["timestep"].float() / 1000, given.get("guidance")


def encode(pipe: Pipeline, pictures: Tensor) -> Tensor:
    """Model latents B x 64 x H/32 x W/32 of pictures B x 3 x H x W in 0..1, on the pipeline's device."""
    vae = pipe.vae
    shown = (2 * pictures - 1).to(pipe._execution_device, vae.dtype)
    return vae.encode(shown).latent_dist.mode().float() * vae.config.scaling_factor


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, mask, letters, letters_mask = pipe.encode_prompt(prompt, batch_size=1, num_images_per_prompt=len(latents))

    def call(noisy: Tensor, level: float) -> dict:
        told = dict(hidden_states=noisy.to(embeds.dtype), encoder_hidden_states=embeds, encoder_attention_mask=mask,
                    encoder_hidden_states_2=letters, encoder_attention_mask_2=letters_mask,
                    timestep=torch.full((len(noisy),), 1000 * level).to(embeds))
        if pipe.transformer.config.guidance_embeds:
            told["guidance"] = torch.full((len(noisy),), 1000 * guidance_scale).to(embeds)
        return told

    return call
