"""Flux.2 in Black Forest Labs' naming, as ComfyUI holds it: Flux.1's blocks with one modulation for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...stream import ParallelStream, TextStream
from ..flux1.comfyui import blocks, embedded, is_single, picture, single_stream, text_stream
from ..naming import Layers
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("mistral3_24b", "qwen3_4b", "qwen3_8b")
TOKENIZE: dict = {}  # its tokenizers know no prompt weights


def fits(model: Layers) -> bool:
    """Whether a Flux is a Flux.2: without a pooled vector, and with one modulation for all blocks."""
    return model.vector_in is None and getattr(model.params, "global_modulation", False)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Concept states B x C x D = txt_in(vectors), what all blocks modulate text by, B x 1 x 9D (6 parts for the
    double-stream ones, 3 for the single-stream ones), and the concepts' RoPE.

    vectors: 1 x C x D_text. timesteps, guidance: one a picture, B.
    """
    vec = embedded(model, timesteps, guidance, vectors.dtype)
    mods = *model.double_stream_modulation_txt(vec), model.single_stream_modulation(vec)[0]
    parts = [part for mod in mods for part in (mod.shift, mod.scale, mod.gate)]
    place = torch.zeros(1, 1, len(model.params.axes_dim), device=vectors.device)
    place[..., -1] = CONCEPT_POSITION
    return model.txt_in(vectors).expand(len(timesteps), -1, -1), torch.cat(parts, dim=-1), model.pe_embedder(place)


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """The text-stream half of a DoubleStreamBlock, or a SingleStreamBlock, without a modulation of its own."""
    parts = modulation.chunk(9, dim=-1)
    return single_stream(module, *parts[6:]) if is_single(module) else text_stream(module, *parts[:6])
