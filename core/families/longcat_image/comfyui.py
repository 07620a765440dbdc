"""LongCat-Image in Black Forest Labs' naming, as ComfyUI holds it: the class is Flux.1's."""

from __future__ import annotations

from torch import Tensor

from ..flux1.comfyui import block, blocks, embedded, picture
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["CUT_BEHIND", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("qwen25_7b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights
CUT_BEHIND = 5  # tokens that end the template and are cut off after they were encoded


def fits(model: Layers) -> bool:
    """Whether a Flux is a LongCat-Image: without a pooled vector, with places for the text, and with Flux.1's blocks."""
    params = model.params
    return model.vector_in is None and list(params.txt_ids_dims) == [1, 2] and not (params.global_modulation or params.yak_mlp)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = txt_in(vectors), and time, B x D, which modulates them. RoPE of the text's first token, where they
    stand, is the identity.

    vectors: 1 x C x D_text. timesteps: one a picture, B.
    """
    vec = embedded(model, timesteps, guidance, vectors.dtype)
    return model.txt_in(vectors).expand(len(vec), -1, -1), vec, None
