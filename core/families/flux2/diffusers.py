"""Flux.2 in diffusers' naming (Flux2Transformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...stream import ParallelStream, TextStream
from ..flux1.diffusers import blocks, called, drawing, fits, keys, rotations, split_heads, text_qkv
from ..naming import Layers
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "fits", "hooked", "keys",
           "rotations"]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Concept states B x C x D, what all blocks modulate text by, B x 1 x 9D (6 parts for the
    double-stream ones, 3 for the single-stream ones), and the concepts' RoPE.

    vectors: 1 x C x D_text. timesteps in 0..1, guidance: one a picture, B; the embedding expects a thousand times as much.
    """
    times = [None if value is None else 1000 * value.to(vectors.dtype) for value in (timesteps, guidance)]
    vec = model.time_guidance_embed(*times)
    modulation = torch.cat((model.double_stream_modulation_txt(vec), model.single_stream_modulation(vec)), dim=-1)[:, None]
    place = torch.zeros(1, len(model.pos_embed.axes_dim), device=vectors.device)
    place[:, -1] = CONCEPT_POSITION
    return model.context_embedder(vectors).expand(len(timesteps), -1, -1), modulation, rotations(*model.pos_embed(place))


def hooked(attn: Layers) -> tuple[nn.Module, nn.Module, nn.Module]:
    """See Flux.1's. In single-stream blocks the last layer is given the MLP's output, too, after the attention's."""
    if is_single(attn):
        return attn.norm_k, attn.to_qkv_mlp_proj, attn.to_out
    return attn.norm_k, attn.to_qkv if attn.fused_projections else attn.to_v, attn.to_out[0]


def is_single(attn: Layers) -> bool:
    """Whether an attention is a single-stream block's."""
    return hasattr(attn, "to_qkv_mlp_proj")


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """The text-stream half of a Flux2TransformerBlock, or a Flux2SingleTransformerBlock."""
    parts, attn = modulation.chunk(9, dim=-1), module.attn
    if is_single(attn):
        def enter(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            qkv, hidden = attn.to_qkv_mlp_proj(x).tensor_split([3 * attn.inner_dim], dim=-1)
            return *split_heads(qkv.chunk(3, dim=-1), attn.heads, attn.norm_q, attn.norm_k), attn.mlp_act_fn(hidden)

        return ParallelStream(*parts[6:], norm=module.norm, enter=enter, leave=attn.to_out)
    return TextStream(*parts[:6], norm1=module.norm1_context, qkv=text_qkv(module.attn), to_out=module.attn.to_add_out,
                      norm2=module.norm2_context, mlp=module.ff_context)
