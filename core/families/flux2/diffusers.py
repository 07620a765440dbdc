"""Flux.2 in diffusers' naming (Flux2Transformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...stream import TextStream
from ..flux1.diffusers import blocks, called, drawing, fits, keys, rotations, text_qkv
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "fits", "keys", "rotations"]


def begin(model: nn.Module, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Concept states B x C x D, what all blocks modulate text by, B x 1 x 6D, and the concepts' RoPE.

    vectors: 1 x C x D_text. timesteps in 0..1, guidance: one a picture, B; the embedding expects a thousand times as much.
    """
    times = [None if value is None else 1000 * value.to(vectors.dtype) for value in (timesteps, guidance)]
    modulation = model.double_stream_modulation_txt(model.time_guidance_embed(*times))[:, None]
    place = torch.zeros(1, len(model.pos_embed.axes_dim), device=vectors.device)
    place[:, -1] = CONCEPT_POSITION
    return model.context_embedder(vectors).expand(len(timesteps), -1, -1), modulation, rotations(*model.pos_embed(place))


def block(module: nn.Module, modulation: Tensor, index: int) -> TextStream:
    """The text-stream half of a Flux2TransformerBlock."""
    return TextStream(*modulation.chunk(6, dim=-1), module.norm1_context, text_qkv(module.attn), module.attn.to_add_out,
                      module.norm2_context, module.ff_context)
