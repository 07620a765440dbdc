"""Lumina 2 as ComfyUI holds it: the class is Z-Image's, without filling up."""

from __future__ import annotations

from torch import Tensor, nn

from ..z_image import comfyui as z_image
from ..z_image.comfyui import block, blocks, patches, picture
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "patches", "picture"]

TEXT_KEYS, TOKENIZE = ("gemma2_2b",), {"disable_weights": True}


def fits(model: nn.Module) -> bool:
    """Whether a NextDiT is a Lumina 2: tokens are not filled up, and no pooled vector modulates (as NewBie's does).

    Older hosts have it under the same name, but do not number its layers; there it is none of this family.
    """
    return getattr(model, "pad_tokens_multiple", 0) is None and model.clip_text_pooled_proj is None


def begin(model: nn.Module, vectors: Tensor, timesteps: Tensor, guidance: None) -> tuple[Tensor, Tensor, Tensor]:
    """See Z-Image's."""
    return z_image.begin(model, vectors, timesteps, guidance, CONCEPT_POSITION)
