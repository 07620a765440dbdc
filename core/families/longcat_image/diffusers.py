"""LongCat-Image in diffusers' naming (LongCatImageTransformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flux1.diffusers import block, blocks, called, encode, fits, hooked, keys, pack, positions, rotations
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "hooked", "keys",
           "reading", "rotations"]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and time, B x D, which modulates them. RoPE of the text's first token,
    where they stand, is the identity.

    vectors: 1 x C x D_text. timesteps in 0..1, one a picture, B; the embedding expects a thousand times as much.
    """
    time = model.time_embed(1000 * timesteps.to(vectors.dtype), vectors.dtype)
    return model.context_embedder(vectors).expand(len(time), -1, -1), time, None


def drawing(model: Layers) -> dict:
    """See Flux.1's. The prompt is drawn as it was written, not as the model would rewrite it."""
    return {"num_inference_steps": 50, "enable_prompt_rewrite": False}


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, text_ids, *_ = pipe.encode_prompt(prompt, num_images_per_prompt=len(latents))
    behind = torch.tensor([1, embeds.shape[1], embeds.shape[1]])  # the text
    return call_of(embeds, text_ids, (positions(latents) + behind).to(text_ids))


def call_of(embeds: Tensor, text_ids: Tensor, places: Tensor) -> Callable[[Tensor, float], dict]:
    """The same of an encoded prompt, its tokens' places, and the picture's."""
    def call(noisy: Tensor, level: float) -> dict:
        return dict(hidden_states=pack(noisy).to(embeds.dtype), encoder_hidden_states=embeds, txt_ids=text_ids, img_ids=places,
                    timestep=torch.full((len(noisy),), level).to(embeds))

    return call
