"""Chroma Radiance as ComfyUI holds it: its blocks, and what modulates them, are Chroma's."""

from __future__ import annotations

from ..chroma.comfyui import TEXT_KEYS, TOKENIZE, begin, block, blocks, picture
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]


def fits(model: Layers) -> bool:
    """Whether a Chroma works on pixels, of which a token covers 16 x 16. Where text has places, concepts stand at its first: zero."""
    return model.patch_size == PATCH and hasattr(model, "nerf_blocks")
