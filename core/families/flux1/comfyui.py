"""Flux.1 in Black Forest Labs' naming, as ComfyUI holds it. Submodules are called, never read: fp8, GGUF
and offloaded weights depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...stream import ParallelStream, TextStream
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS, TOKENIZE = ("t5xxl",), {"disable_weights": True}


def timestep_embedding(t: Tensor, dim: int = 256, max_period: float = 10_000.0, factor: float = 1000.0) -> Tensor:
    """Sinusoidal embedding of timesteps in 0..1, one a row: B -> B x dim float32 (flux, modules/layers.py).

    `factor` times t is rounded to t's type, as there: a guidance of 6 is 6016 to a model in bfloat16, and another embedding.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (factor * t)[:, None].float() * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def fits(model: Layers) -> bool:
    """Whether a Flux is a Flux.1: with a pooled vector, and modulation in every block."""
    params = model.params
    return model.vector_in is not None and not getattr(params, "global_modulation", False) and not getattr(params, "txt_norm", False)


def blocks(model: Layers, singles: int | None = 0) -> dict[tuple[str, int], Layers]:
    """The double-stream blocks, then the first `singles` single-stream ones (None: all), by the names under which ComfyUI lets
    them be replaced."""
    double = {("double_block", i): block for i, block in enumerate(model.double_blocks)}
    return double | {("single_block", i): block for i, block in enumerate(model.single_blocks[:singles])}


def picture(args: dict, count: int, seen: dict) -> tuple[Tensor, int, int]:
    """RoPE of a block's tokens, and the first and the end of the `count` that are the picture's own.

    args: what ComfyUI gives a replacement of the block. The text stands before the picture, reference latents after it; in
    single-stream blocks both are one sequence, and older hosts do not tell there where the text ends.
    """
    if "txt" in args:
        seen["text"] = args["txt"].shape[1]
    first = seen["text"]
    return args["pe"], first, first + count


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = txt_in(vectors), and their modulation vector B x D. At position zero RoPE is the identity.

    vectors: 1 x C x D_text. timesteps, guidance: one a picture, B. The pooled vector is zero, not the prompt's.
    """
    vec = embedded(model, timesteps, guidance, vectors.dtype)
    vec = vec + model.vector_in(vectors.new_zeros(1, model.vector_in.in_layer.in_features))
    return model.txt_in(vectors).expand(len(vec), -1, -1), vec, None


def embedded(model: Layers, timesteps: Tensor, guidance: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Time and guidance: B x D."""
    vec = model.time_in(timestep_embedding(timesteps).to(dtype))
    guidance_in = getattr(model, "guidance_in", None)  # schnell has none, or one that embeds nothing
    if guidance is not None and guidance_in is not None and hasattr(guidance_in, "in_layer"):
        vec = vec + guidance_in(timestep_embedding(guidance).to(dtype))
    return vec


def block(module: Layers, modulation: Tensor, index: int, activation: Callable | None = None) -> TextStream | ParallelStream:
    """The text-stream half of a DoubleStreamBlock, or a SingleStreamBlock, with its own modulation. activation: see single_stream."""
    if is_single(module):
        mod, _ = module.modulation(modulation)
        return single_stream(module, mod.shift, mod.scale, mod.gate, activation=activation)
    mod1, mod2 = module.txt_mod(modulation)
    return text_stream(module, mod1.shift, mod1.scale, mod1.gate, mod2.shift, mod2.scale, mod2.gate)


def text_stream(module: Layers, *modulation: Tensor) -> TextStream:
    """The text-stream half of any DoubleStreamBlock."""
    attn = module.txt_attn

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_heads(attn.qkv(x), attn.num_heads, attn.norm)

    return TextStream(*modulation, norm1=module.txt_norm1, qkv=qkv, to_out=attn.proj, norm2=module.txt_norm2, mlp=module.txt_mlp)


def is_single(module: Layers) -> bool:
    """Whether a block is a SingleStreamBlock."""
    return hasattr(module, "linear1")


def single_stream(module: Layers, *modulation: Tensor, activation: Callable | None = None) -> ParallelStream:
    """Any SingleStreamBlock. Its two layers do both, attention and MLP. activation: the MLP's, where it is not the block's `mlp_act`."""
    activate = activation or module.mlp_act

    def enter(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        qkv, hidden = module.linear1(x).tensor_split([3 * module.hidden_size], dim=-1)
        return *split_heads(qkv, module.num_heads, module.norm), activate(hidden)

    return ParallelStream(*modulation, norm=module.pre_norm, enter=enter, leave=module.linear2)


def split_heads(qkv: Tensor, heads: int, norm: Layers) -> tuple[Tensor, Tensor, Tensor]:
    """B x T x 3D -> queries and keys, normalised, and values, each B x heads x T x d."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = norm(q, k, v)
    return q, k, v
