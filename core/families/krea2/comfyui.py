"""Krea 2 as ComfyUI holds it (comfy/ldm/krea2/model.py, SingleStreamDiT). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...stream import TextStream
from ..flux1.comfyui import timestep_embedding
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "patches", "picture"]

TEXT_KEYS = ("qwen3vl_4b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Every one."""
    return True


def blocks(model: Layers, singles: int | None = 0) -> dict[int, Layers]:
    """All blocks, whatever `singles`, by ComfyUI's numbers for them."""
    return dict(enumerate(model.blocks))


def patches(seen: dict) -> dict[str, Callable]:
    """Patches of ComfyUI's that are told RoPE in each block, B x 1 x tokens x d/2 x 2 x 2, and where the text ends."""
    def note(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, extra_options: dict, **more) -> dict:
        seen["pe"], seen["text"] = pe, extra_options["img_slice"][0]
        return {}

    return {"attn1_patch": note}


def picture(model: Layers, count: int, seen: dict) -> tuple[Tensor, int, int]:
    """RoPE of a block's tokens, and the first and the end of the `count` that are the picture's own: behind the text, before references."""
    return seen["pe"], seen["text"], seen["text"] + count


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D after `txtfusion`, in which they see one another; and what all blocks modulate by, B x 1 x 6D.

    vectors: 1 x C x layers * D_text. timesteps: one a picture, B. All text stands at position zero, where RoPE is the identity.
    """
    states = model.txtmlp(model.txtfusion(vectors.unflatten(-1, (model.txtlayers, -1))))
    time = model.tproj(model.tmlp(timestep_embedding(timesteps, model.tdim)[:, None].to(vectors.dtype)))
    return states.expand(len(timesteps), -1, -1), time, None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """A SingleStreamBlock, as it is for text and image alike. A gate made of what attention is given closes on what it gives."""
    attn, gate = module.attn, torch.empty(0)
    scale1, shift1, gate1, scale2, shift2, gate2 = module.mod(modulation)

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal gate
        gate = attn.gate(x).sigmoid()
        q, k, v = (layer(x).unflatten(-1, (heads, -1)).transpose(1, 2) for layer, heads in (
            (attn.wq, attn.heads), (attn.wk, attn.kvheads), (attn.wv, attn.kvheads)))
        q, k = attn.qknorm(q, k)
        return q, *(part.repeat_interleave(attn.heads // attn.kvheads, dim=1) for part in (k, v))

    return TextStream(shift1, scale1, gate1, shift2, scale2, gate2, norm1=module.prenorm, qkv=qkv, to_out=lambda out: attn.wo(out * gate),
                      norm2=module.postnorm, mlp=module.mlp)
