"""Flux.1 in Black Forest Labs' naming, as ComfyUI holds it. Submodules are called, never read: fp8, GGUF
and offloaded weights depend on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..stream import TextStream
from . import Defaults

NAME = "flux1"
DEFAULTS = Defaults(first_layer=15 / 18, last_layer=1.0, first_step=0.0, temperature=1.0, softmax_first=True)


def timestep_embedding(t: Tensor, dim: int = 256, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of timesteps in 0..1, one a row: B -> B x dim float32 (flux, modules/layers.py)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = 1000.0 * t.float()[:, None] * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The double-stream blocks."""
    return model.double_blocks


def begin(model: nn.Module, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Concept states B x C x D = txt_in(vectors), and their modulation vector B x D.

    vectors: 1 x C x D_text. timesteps, guidance: one a picture, B. The pooled vector is zero, not the prompt's.
    """
    dtype = vectors.dtype
    vec = model.time_in(timestep_embedding(timesteps).to(dtype))
    guidance_in = getattr(model, "guidance_in", None)  # schnell has none, or one that embeds nothing
    if guidance is not None and hasattr(guidance_in, "in_layer"):
        vec = vec + guidance_in(timestep_embedding(guidance).to(dtype))
    vec = vec + model.vector_in(vectors.new_zeros(1, model.vector_in.in_layer.in_features))
    return model.txt_in(vectors).expand(len(vec), -1, -1), vec


def text_stream(block: nn.Module, vec: Tensor) -> TextStream:
    """The text-stream half of a DoubleStreamBlock. Concepts stand at position zero, where RoPE is the identity."""
    mod1, mod2 = block.txt_mod(vec)
    heads = block.txt_attn.num_heads

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = block.txt_attn.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = block.txt_attn.norm(q, k, v)
        return q, k, v

    return TextStream(mod1.shift, mod1.scale, mod1.gate, mod2.shift, mod2.scale, mod2.gate,
                      block.txt_norm1, qkv, block.txt_attn.proj, block.txt_norm2, block.txt_mlp)
