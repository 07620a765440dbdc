"""SD3 in diffusers' naming (SD3Transformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...stream import TextStream
from ..flux1.diffusers import encode, fits, rotations, split_heads  # without RoPE there is nothing to rotate
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["BOTH_PROMPTS", "DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits",
           "hooked", "keys", "reading", "rotations"]

BOTH_PROMPTS = True


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """All blocks, none of which is single-stream."""
    return list(model.transformer_blocks)


def hooked(attn: Layers) -> tuple[nn.Module, nn.Module, nn.Module]:
    """See Flux.1's. Only SD3.5 normalises its keys."""
    values = attn.to_qkv if attn.fused_projections else attn.to_v
    return attn.norm_k or (attn.to_qkv if attn.fused_projections else attn.to_k), values, attn.to_out[0]


def keys(attn: Layers, seen: Tensor) -> Tensor:
    """Keys B x heads x N x d, of what the first layer of `hooked` has made: that, or B x N x D, or queries and values beside them."""
    if seen.ndim == 4:
        return seen
    parts = seen.split(attn.inner_dim, dim=-1)
    return parts[len(parts) // 2].unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and their modulation vector B x D. The pooled vector is zero.

    vectors: 1 x C x D_text. timesteps in 0..1, one a picture, B; the embedding expects a thousand times as much.
    """
    vec = model.time_text_embed(1000 * timesteps, vectors.new_zeros(len(timesteps), model.config.pooled_projection_dim))
    return model.context_embedder(vectors).expand(len(vec), -1, -1), vec, None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """The text half of a JointTransformerBlock. The last one's has an attention and nothing after it."""
    norm, attn = module.norm1_context, module.attn
    parts = norm.linear(norm.silu(modulation))[:, None]

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = attn.to_added_qkv(x).chunk(3, dim=-1) if attn.fused_projections else (
            attn.add_q_proj(x), attn.add_k_proj(x), attn.add_v_proj(x))
        return split_heads(projected, attn.heads, attn.norm_added_q or nn.Identity(), attn.norm_added_k or nn.Identity())

    if module.context_pre_only:
        scale, shift = parts.chunk(2, dim=-1)
        return TextStream.attention_only(shift, scale, norm=norm.norm, qkv=qkv)
    return TextStream(*parts.chunk(6, dim=-1), norm1=norm.norm, qkv=qkv, to_out=attn.to_add_out, norm2=module.norm2_context,
                      mlp=module.ff_context)


def called(given: dict) -> tuple[tuple[int, int], Tensor, None]:
    """Rows and columns of the picture's tokens, and noise levels in 0..1, of what the transformer is given."""
    rows, columns = (side // PATCH for side in given["hidden_states"].shape[-2:])
    return (rows, columns), given["timestep"] / 1000, None


def drawing(model: Layers) -> dict:
    """See Flux.1's."""
    return {"num_inference_steps": 28}


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, _, pooled, _ = pipe.encode_prompt(prompt, prompt, prompt, num_images_per_prompt=len(latents), do_classifier_free_guidance=False)
    pooled = pooled if pooled_prompt else torch.zeros_like(pooled)

    def call(noisy: Tensor, level: float) -> dict:
        return dict(hidden_states=noisy.to(embeds.dtype), encoder_hidden_states=embeds, pooled_projections=pooled,
                    timestep=torch.full((len(noisy),), 1000 * level, device=embeds.device))

    return call
