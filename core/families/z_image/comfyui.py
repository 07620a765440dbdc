"""Z-Image as ComfyUI holds it (comfy/ldm/lumina/model.py, NextDiT). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...stream import TextStream, within_range
from ..naming import Layers
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "patches", "picture"]

TEXT_KEYS = ("qwen3_4b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Whether a NextDiT is a Z-Image that works on latents: tokens are padded, and the last layer is not one for pixels."""
    return getattr(model, "pad_tokens_multiple", None) is not None and hasattr(model, "final_layer")


def blocks(model: Layers, singles: int | None = 0) -> dict[int, Layers]:
    """The layers over text and image, whatever `singles`, by ComfyUI's numbers for them."""
    return dict(enumerate(model.layers))


def patches(seen: dict) -> dict[str, Callable]:
    """Patches of ComfyUI's that are told RoPE before the layers, B x tokens x 1 x d/2 x 2 x 2: that of references and picture."""
    def note(args: dict) -> dict:
        seen["pe"] = args["pe"].movedim(1, 2)
        return {}

    return {"noise_refiner": note}


def picture(model: Layers, count: int, seen: dict) -> tuple[Tensor, int, int]:
    """RoPE of a layer's last tokens, and the first and the end, counted from the last, of the `count` that are the picture's own.

    Text, references, picture is their order; what fills up the picture's to a multiple stands behind it.
    """
    filled = -count % (model.pad_tokens_multiple or 1)
    return seen["pe"], -count - filled, -filled


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: None, position: int = CONCEPT_POSITION) -> tuple[
        Tensor, Tensor, Tensor]:
    """Concept states B x C x D after the text's refiner, in which they see one another; time B x D; and the concepts' RoPE.

    vectors: 1 x C x D_text. timesteps: one a picture, B; the model counts from noise to picture. position: among the text's tokens.
    """
    place = torch.zeros(1, vectors.shape[1], len(model.axes_dims), device=vectors.device)
    place[..., 0] = position
    pe = model.rope_embedder(place)
    states = model.cap_embedder(vectors)
    for layer in model.context_refiner:
        states = layer(states, None, pe.movedim(1, 2))
    time = model.t_embedder((1 - timesteps) * model.time_scale, dtype=vectors.dtype)
    return states.expand(len(timesteps), -1, -1), time, pe[:, :, :1]


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """A JointTransformerBlock, as it is for text and image alike."""
    attn = module.attention

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = attn.n_local_heads, attn.n_local_kv_heads, attn.n_local_kv_heads
        q, k, v = attn.qkv(x).unflatten(-1, (sum(heads), -1)).transpose(1, 2).split(heads, dim=1)
        return attn.q_norm(q), *(part.repeat_interleave(attn.n_rep, dim=1) for part in (attn.k_norm(k), v))

    return layer(module, modulation, qkv, attn.out)


def layer(module: Layers, modulation: Tensor, qkv: Callable, to_out: Callable) -> TextStream:
    """A layer of either naming, modulated by time, B x D."""
    norms = module.attention_norm1, module.attention_norm2, module.ffn_norm1, module.ffn_norm2
    return between_norms(module.adaLN_modulation(modulation), norms, qkv, to_out, module.feed_forward)


def between_norms(modulation: Tensor, norms: Sequence[Callable], qkv: Callable, to_out: Callable, mlp: Callable) -> TextStream:
    """A layer whose attention and MLP stand between two norms each, modulated by what it has made of time, B x 4D."""
    scale1, gate1, scale2, gate2 = modulation[:, None].chunk(4, dim=-1)
    unmoved, (norm1, behind1, norm2, behind2) = scale1.new_zeros(()), norms
    return TextStream(unmoved, scale1, gate1.tanh(), unmoved, scale2, gate2.tanh(),
                      norm1=norm1, qkv=qkv, to_out=lambda out: behind1(within_range(to_out(out))),
                      norm2=norm2, mlp=lambda x: behind2(within_range(mlp(x))))
