"""Flux.1 in diffusers' naming (FluxTransformer2DModel). The family is the same: recordings of both are interchangeable.

Submodules are called, never read: quantised and offloaded weights and LoRA depend on it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...stream import TextStream
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "grid", "rotations"]


def blocks(model: nn.Module) -> nn.ModuleList:
    """The double-stream blocks."""
    return model.transformer_blocks


def begin(model: nn.Module, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and their modulation vector B x D. At position zero RoPE is the identity.

    vectors: 1 x C x D_text. timesteps in 0..1, guidance: one a picture, B; the embedding itself expects a
    thousand times as much, as the model's own forward gives it. The pooled vector is zero, not the prompt's.
    """
    pooled = vectors.new_zeros(len(timesteps), model.config.pooled_projection_dim)
    times = [1000 * value.to(vectors.dtype) for value in (timesteps, guidance) if value is not None]
    vec = model.time_text_embed(*times, pooled)
    return model.context_embedder(vectors).expand(len(vec), -1, -1), vec, None


def block(module: nn.Module, modulation: Tensor, index: int) -> TextStream:
    """The text-stream half of a FluxTransformerBlock."""
    norm = module.norm1_context
    parts = norm.linear(norm.silu(modulation))[:, None].chunk(6, dim=-1)  # shift, scale, gate, for the attention and the MLP
    return TextStream(*parts, norm.norm, text_qkv(module.attn), module.attn.to_add_out, module.norm2_context, module.ff_context)


def text_qkv(attn: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The text's queries, keys and values of an attention of diffusers' Flux models: see core.stream.Block."""
    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = attn.to_added_qkv(x).chunk(3, dim=-1) if attn.fused_projections else (
            attn.add_q_proj(x), attn.add_k_proj(x), attn.add_v_proj(x))
        q, k, v = (part.unflatten(-1, (attn.heads, -1)) for part in projected)
        return attn.norm_added_q(q).transpose(1, 2), attn.norm_added_k(k).transpose(1, 2), v.transpose(1, 2)

    return qkv


def rotations(cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE as diffusers keeps it, twice T x d with every value repeated -> 1 x 1 x T x d/2 x 2 x 2, as in flux/math.py."""
    cos, sin = cos[:, ::2], sin[:, ::2]
    return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))[None, None]


def grid(ids: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the picture's own tokens, from the positions N x 3 (or B x N x 3) of all image tokens.

    The first column is 0 for the picture and another number for references (Kontext), which stand after it.
    None when the picture's tokens do not stand row by row.
    """
    ids = (ids[0] if ids.ndim == 3 else ids).cpu()  # waits for the device once
    own = _run_length(ids[:, 0])
    columns = _run_length(ids[:own, 1])
    if own % columns:
        return None
    places = ids[:own].unflatten(0, (-1, columns))
    in_rows = (places[..., 1] == places[:, :1, 1]).all() and (places[..., 2] == places[:1, :, 2]).all()
    return (own // columns, columns) if in_rows else None


def _run_length(values: Tensor) -> int:
    """How many of the first values are the same."""
    return int((values == values[0]).cumprod(0).sum())
