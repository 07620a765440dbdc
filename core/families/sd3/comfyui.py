"""SD3 in Stability AI's naming, as ComfyUI holds it. Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from torch import Tensor

from ...stream import TextStream
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["BARE", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits"]

BARE = True  # and its blocks, where they are replaced, are run in another way (with checkpoints), so none is
TEXT_KEYS, TOKENIZE = ("l", "g", "t5xxl"), {"disable_weights": True}


def fits(model: Layers) -> bool:
    """Whether text goes straight into the blocks, as in every published SD3."""
    return model.context_processor is None and model.register_length == 0


def blocks(model: Layers, singles: int | None = 0) -> dict[tuple[str, int], Layers]:
    """All blocks, none of which is single-stream."""
    return {("double_block", i): block for i, block in enumerate(model.joint_blocks)}


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and their modulation vector B x D. The pooled vector is zero.

    vectors: 1 x C x D_text. timesteps in 0..1000, one a picture, B.
    """
    vec = model.t_embedder(timesteps, dtype=vectors.dtype)
    if model.y_embedder is not None:
        vec = vec + model.y_embedder(vectors.new_zeros(1, model.y_embedder.mlp[0].in_features))
    return model.context_embedder(vectors).expand(len(vec), -1, -1), vec, None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """The text half of a JointBlock. The last one's has an attention and nothing after it."""
    text = module.context_block
    attn, parts = text.attn, text.adaLN_modulation(modulation)[:, None]

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return attn.ln_q(q), attn.ln_k(k), v

    if text.pre_only:
        return TextStream.attention_only(*parts.chunk(2, dim=-1), norm=text.norm1, qkv=qkv)
    return TextStream(*parts.chunk(6, dim=-1), norm1=text.norm1, qkv=qkv, to_out=attn.post_attention, norm2=text.norm2, mlp=text.mlp)
