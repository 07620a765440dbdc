"""Chroma in Black Forest Labs' naming, as ComfyUI holds it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...stream import ParallelStream, TextStream
from ..flux1.comfyui import TEXT_KEYS, TOKENIZE, blocks, is_single, picture, single_stream, text_stream, timestep_embedding
from ..naming import Layers
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

_MODULATIONS = 344  # that the small network is asked for: 3 for 38 single-stream blocks, 12 for 19 double-stream ones, 2 at the end


def fits(model: Layers) -> bool:
    """Whether a Chroma works on latents; Chroma Radiance works on pixels."""
    return model.patch_size == PATCH


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = txt_in(vectors), and the text's modulations, B x blocks x 6 x D; the
    three of a single-stream block stand there twice. At position zero RoPE is the identity.

    vectors: 1 x C x D_text. timesteps, guidance: one a picture, B.
    """
    asked = torch.cat([timestep_embedding(value, 16) for value in (timesteps, guidance)], dim=1)[:, None].expand(-1, _MODULATIONS, -1)
    number = timestep_embedding(torch.arange(_MODULATIONS, device=asked.device), 32).expand(len(asked), -1, -1)
    made = model.distilled_guidance_layer(torch.cat((asked, number), dim=-1).to(vectors.dtype))
    mods = [mod for i in range(len(model.double_blocks)) for mod in model.get_modulations(made, "double_txt", idx=i)]
    mods += [model.get_modulations(made, "single", idx=i) for i in range(len(model.single_blocks)) for _ in range(2)]
    parts = torch.cat([part for mod in mods for part in (mod.shift, mod.scale, mod.gate)], dim=1)
    return model.txt_in(vectors).expand(len(asked), -1, -1), parts.unflatten(1, (-1, 6)), None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """The text-stream half of a DoubleStreamBlock, or a SingleStreamBlock, without a modulation of its own."""
    parts = modulation[:, index].chunk(6, dim=1)
    return single_stream(module, *parts[:3]) if is_single(module) else text_stream(module, *parts)
