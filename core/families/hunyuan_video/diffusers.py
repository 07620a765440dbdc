"""HunyuanVideo in diffusers' naming (HunyuanVideoTransformer3DModel): its blocks are Flux's, with the picture before the text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flux1.diffusers import block, blocks, hooked, keys, rotations
from ..naming import Layers, Pipeline
from . import COMPRESSION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PICTURE_ROPE", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode",
           "fits", "hooked", "keys", "reading", "rotations"]

PICTURE_ROPE = True


def fits(model: Layers) -> bool:
    """Whether it draws from words alone; those that go on from a picture see it in their tokens, or in a modulation of its own."""
    config = model.config
    return config.image_condition_type is None and config.in_channels == config.out_channels and \
        (config.patch_size_t, config.patch_size) == (1, PATCH)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See comfyui.begin. timesteps in 0..1, guidance as the model is given it, a thousandfold: one a clip, B."""
    pooled = vectors.new_zeros(len(timesteps), model.config.pooled_projection_dim)
    vec, _ = model.time_text_embed(1000 * timesteps, pooled, guidance)
    return refined(model, vectors, timesteps), vec, None


def refined(model: Layers, vectors: Tensor, timesteps: Tensor) -> Tensor:
    """Concept states B x C x D: each has passed the token refiner as a prompt of one token."""
    clips, concepts = len(timesteps), vectors.shape[1]
    alone = vectors.transpose(0, 1).repeat(clips, 1, 1)
    return model.context_embedder(alone, 1000 * timesteps.repeat_interleave(concepts), None).view(clips, concepts, -1)


def drawing(model: Layers) -> dict:
    """See Flux.1's. The shell draws one frame."""
    return {"num_inference_steps": 50, "num_frames": 1}


def called(given: dict, patch: int = PATCH) -> tuple[tuple[int, int, int], Tensor, Tensor | None]:
    """Latent frames, rows and columns of the video's tokens, noise levels in 0..1 and guidance, of what the transformer is given."""
    frames, height, width = given["hidden_states"].shape[2:]
    return (frames, height // patch, width // patch), given["timestep"].float() / 1000, given.get("guidance")


def encode(pipe: Pipeline, pictures: Tensor) -> Tensor:
    """Model latents B x c x 1 x h x w, each a video of one frame, of pictures B x 3 x H x W in 0..1, on the pipeline's device."""
    vae = pipe.vae
    shown = (2 * pictures[:, :, None] - 1).to(pipe._execution_device, vae.dtype)
    latents = torch.cat([vae.encode(one).latent_dist.mode() for one in shown.split(1)])  # 1.5's cannot take several without a GPU
    return latents.float() * vae.config.scaling_factor


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, pooled, mask = pipe.encode_prompt(prompt, num_videos_per_prompt=len(latents))
    pooled = pooled if pooled_prompt else torch.zeros_like(pooled)

    def call(noisy: Tensor, level: float) -> dict:
        told = dict(hidden_states=noisy.to(embeds.dtype), encoder_hidden_states=embeds, encoder_attention_mask=mask.to(embeds.dtype),
                    pooled_projections=pooled.to(embeds.dtype), timestep=torch.full((len(noisy),), 1000 * level, device=embeds.device))
        if pipe.transformer.config.guidance_embeds:
            told["guidance"] = torch.full((len(noisy),), 1000 * guidance_scale).to(embeds)
        return told

    return call
