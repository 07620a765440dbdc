"""Wan 2.2 5B as ComfyUI holds it: Wan with other latents."""

from __future__ import annotations

from ..naming import Layers
from ..wan import comfyui as wan
from ..wan.comfyui import TEXT_KEYS, TOKENIZE, begin, block, blocks, picture
from . import CHANNELS, COMPRESSION, DEFAULTS, KEYS_ONLY, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "KEYS_ONLY", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits",
           "picture"]


def fits(model: Layers) -> bool:
    """See Wan's."""
    return wan.fits(model, CHANNELS)
