"""Qwen-Image as ComfyUI holds it, which is in diffusers' names. Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...stream import TextStream
from ..naming import Layers
from . import AT_FIRST_TOKEN, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["AT_FIRST_TOKEN", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("qwen25_7b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Whether a Qwen-Image draws one picture; the one for layers draws several at once."""
    return not getattr(model.time_text_embed, "use_additional_t_cond", False)


def blocks(model: Layers, singles: int | None = 0) -> dict[tuple[str, int], Layers]:
    """All blocks, none of which is single-stream, by the names under which ComfyUI lets them be replaced."""
    return {("double_block", i): block for i, block in enumerate(model.transformer_blocks)}


def picture(args: dict, count: int, seen: dict) -> tuple[Tensor, int, int]:
    """See Flux.1's. RoPE is B x 1 x N x d/2 x 2 x 2; ComfyUI before 0.4 has tokens before heads."""
    pe, first = args["pe"], args["txt"].shape[1]
    return pe.transpose(1, 2) if pe.shape[2] == 1 else pe, first, first + count


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D and the time embedding B x D that modulates them. They stand where the prompt's first token does.

    vectors: 1 x C x D_text. timesteps: one a picture, B. The model embeds no guidance.
    """
    return model.txt_in(model.txt_norm(vectors)).expand(len(timesteps), -1, -1), model.time_text_embed(timesteps, vectors), None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """The text-stream half of a QwenImageTransformerBlock."""
    parts = module.txt_mod(modulation)[:, None].chunk(6, dim=-1)  # shift, scale, gate, for the attention and the MLP
    return TextStream(*parts, norm1=module.txt_norm1, qkv=text_qkv(module.attn), to_out=module.attn.to_add_out, norm2=module.txt_norm2,
                      mlp=module.txt_mlp)


def text_qkv(attn: Layers) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The text's queries, keys and values of an attention: see core.stream.Block."""
    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (project(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                   for project in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
        return attn.norm_added_q(q), attn.norm_added_k(k), v

    return qkv
