"""HunyuanVideo 1.5 as ComfyUI holds it. What it is told of a text's letters (ByT5) and of a first picture has no part in concepts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..hunyuan_video import comfyui as hunyuan_video
from ..hunyuan_video.comfyui import block, blocks, picture
from ..naming import Layers
from . import COMPRESSION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("qwen25_7b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Whether tokens are marked by what they are of, as in 1.5 alone, and there is no second time, as in few-step upscalers."""
    return list(model.patch_size) == [1, PATCH, PATCH] and getattr(model, "cond_type_embedding", None) is not None and \
        model.time_r_in is None


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See HunyuanVideo's; after the refiner the mark of a prompt's token is added."""
    states, vec, pe = hunyuan_video.begin(model, vectors, timesteps, guidance)
    marks = model.cond_type_embedding.to(states.device)  # where the model's own forward puts them, too
    return states + marks(torch.zeros(1, 1, dtype=torch.long, device=states.device)).to(states.dtype), vec, pe
