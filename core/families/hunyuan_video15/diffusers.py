"""HunyuanVideo 1.5 in diffusers' naming (HunyuanVideo15Transformer3DModel). See comfyui.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flux1.diffusers import block, hooked, keys, rotations
from ..hunyuan_video import diffusers as hunyuan_video
from ..hunyuan_video.diffusers import PICTURE_ROPE, drawing, encode
from ..naming import Layers, Pipeline
from . import COMPRESSION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PICTURE_ROPE", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode",
           "fits", "hooked", "keys", "reading", "rotations"]


def fits(model: Layers) -> bool:
    """Whether there is no second time, as in few-step upscalers."""
    return (model.config.patch_size_t, model.config.patch_size) == (1, PATCH) and not model.config.use_meanflow


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """All blocks, none of which is single-stream."""
    return [*model.transformer_blocks]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See HunyuanVideo's; after the refiner the mark of a prompt's token is added. timesteps in 0..1: one a clip, B."""
    mark = model.cond_type_embed(torch.zeros(1, 1, dtype=torch.long, device=vectors.device))
    vec = model.time_embed((1000 * timesteps).to(vectors.dtype))  # rounded to the model's type, as its pipeline does
    return hunyuan_video.refined(model, vectors, timesteps) + mark, vec, None


def called(given: dict) -> tuple[tuple[int, int, int], Tensor, None]:
    """See HunyuanVideo's."""
    grid, noise, _ = hunyuan_video.called(given, PATCH)
    return grid, noise, None


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """See HunyuanVideo's. No first picture is given: its latents, their mask and its embedding are zero."""
    embeds, mask, letters, letters_mask = pipe.encode_prompt(prompt, num_videos_per_prompt=len(latents))
    none = torch.zeros(len(latents), 1, pipe.transformer.config.image_embed_dim).to(embeds)

    def call(noisy: Tensor, level: float) -> dict:
        seen = torch.cat((noisy, torch.zeros_like(noisy), torch.zeros_like(noisy[:, :1])), dim=1)
        return dict(hidden_states=seen.to(embeds.dtype), encoder_hidden_states=embeds, encoder_attention_mask=mask,
                    encoder_hidden_states_2=letters, encoder_attention_mask_2=letters_mask, image_embeds=none,
                    timestep=torch.full((len(noisy),), 1000 * level).to(embeds))

    return call
