"""HunyuanImage 2.1 as ComfyUI holds it, in a HunyuanVideo. What it is told of a text's letters (ByT5) has no part in concepts."""

from __future__ import annotations

from ..hunyuan_video.comfyui import begin, block, blocks, picture
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("qwen25_7b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Whether tokens have two sides, as a picture's, and there is no second time, as in the distilled one."""
    return list(model.patch_size) == [PATCH, PATCH] and model.time_r_in is None
