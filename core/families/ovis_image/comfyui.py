"""Ovis-Image in Black Forest Labs' naming, as ComfyUI holds it: the class is Flux.1's."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import silu

from ...stream import ParallelStream, TextStream
from ..flux1 import comfyui as flux1
from ..flux1.comfyui import blocks, picture
from ..longcat_image import comfyui as longcat_image
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("qwen3_2b",)
TOKENIZE: dict = {}  # its tokenizer knows no prompt weights


def fits(model: Layers) -> bool:
    """Whether a Flux is an Ovis-Image: text is normalised, and MLPs are gated. Older hosts have neither."""
    return getattr(model.params, "txt_norm", False) and getattr(model.params, "yak_mlp", False)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See LongCat-Image's, of normalised vectors."""
    return longcat_image.begin(model, model.txt_norm(vectors), timesteps, guidance)


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """See Flux.1's; single-stream blocks gate their MLP, too."""
    return flux1.block(module, modulation, index, gated)


def gated(hidden: Tensor) -> Tensor:
    """The activations of an MLP whose second half closes on its first."""
    values, gate = hidden.chunk(2, dim=-1)
    return silu(gate) * values
