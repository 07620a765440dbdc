"""Wan as ComfyUI holds it. Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from torch import Tensor

from ...stream import TextKeys
from ..naming import Layers
from . import CHANNELS, COMPRESSION, DEFAULTS, KEYS_ONLY, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "KEYS_ONLY", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits",
           "picture"]

TEXT_KEYS, TOKENIZE = ("umt5xxl",), {"disable_weights": True}


def fits(model: Layers, channels: int = CHANNELS) -> bool:
    """Whether it is a plain Wan of a VAE with so many channels. Models made from it for sound, poses or cameras, and those that take a
    reference picture in a layer of its own, have other tokens before the video's."""
    return type(model).__name__ == "WanModel" and model.out_dim == channels and model.ref_conv is None


def blocks(model: Layers, singles: int | None = 0) -> dict[tuple[str, int], Layers]:
    """All blocks, by the names under which ComfyUI lets them be replaced."""
    return {("double_block", i): block for i, block in enumerate(model.blocks)}


def picture(args: dict, count: int, seen: dict) -> tuple[None, int, int]:
    """See Flux.1's. The video's own tokens stand first, and what they ask the text is asked without RoPE."""
    return None, 0, count


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """The concepts' text embeddings B x C x D, which stay the same in every block; nothing modulates them.

    vectors: 1 x C x D_text. timesteps: one a clip, B.
    """
    states = model.text_embedding(vectors).expand(len(timesteps), -1, -1)
    return states, states[..., :0], None


def block(module: Layers, modulation: Tensor, index: int) -> TextKeys:
    """The text's keys in the cross-attention of a WanAttentionBlock, B x heads x C x d."""
    attn = module.cross_attn
    return TextKeys(lambda text: attn.norm_k(attn.k(text)).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2))
