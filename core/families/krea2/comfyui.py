"""Krea 2 as ComfyUI holds it (comfy/ldm/krea2/model.py, SingleStreamDiT). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """A SingleStreamBlock, as it is for text and image alike."""
    attn = module.attn
    return single_stream(module.mod(modulation), module.prenorm, (attn.wq, attn.wk, attn.wv, attn.gate), attn.heads, attn.kvheads,
                         attn.qknorm, attn.wo, module.postnorm, module.mlp)


def single_stream(modulation: Sequence[Tensor], norm1: Callable, layers: Sequence[Callable], heads: int, fewer: int,
                  qk_norm: Callable, to_out: Callable, norm2: Callable, mlp: Callable) -> TextStream:
    """A block of any naming. layers: of queries, keys, values, and of a gate made of what attention is given, which closes on what it
    gives. fewer: heads of keys and values.
    """
    scale1, shift1, gate1, scale2, shift2, gate2 = modulation
    to_q, to_k, to_v, to_gate = layers
    gate = scale1.new_zeros(0)

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal gate
        gate = to_gate(x).sigmoid()
        q, k, v = (layer(x).unflatten(-1, (count, -1)).transpose(1, 2)
                   for layer, count in ((to_q, heads), (to_k, fewer), (to_v, fewer)))
        q, k = qk_norm(q, k)
        return q, *(part.repeat_interleave(heads // fewer, dim=1) for part in (k, v))

    return TextStream(shift1, scale1, gate1, shift2, scale2, gate2, norm1=norm1, qkv=qkv, to_out=lambda out: to_out(out * gate),
                      norm2=norm2, mlp=mlp)
