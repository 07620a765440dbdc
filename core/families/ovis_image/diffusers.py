"""Ovis-Image in diffusers' naming (OvisImageTransformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...stream import ParallelStream, TextStream
from ..flux1 import diffusers as flux1
from ..flux1.diffusers import blocks, called, encode, fits, hooked, keys, positions, rotations
from ..longcat_image.diffusers import call_of
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS
from .comfyui import gated

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "hooked", "keys",
           "reading", "rotations"]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D, of normalised vectors, and time, B x D, which modulates them. RoPE of the text's first token, where
    they stand, is the identity.

    vectors: 1 x C x D_text. timesteps in 0..1, one a picture, B; the embedding expects a thousand times as much.
    """
    time = model.timestep_embedder(model.time_proj(1000 * timesteps.to(vectors.dtype)).to(vectors.dtype))
    return model.context_embedder(model.context_embedder_norm(vectors)).expand(len(time), -1, -1), time, None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """See Flux.1's; single-stream blocks gate their MLP, too."""
    return flux1.block(module, modulation, index, gated)


def drawing(model: Layers) -> dict:
    """See Flux.1's: the pipeline's own choices."""
    return {"num_inference_steps": 50}


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, _, text_ids, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, num_images_per_prompt=len(latents))
    return call_of(embeds, text_ids, positions(latents).to(text_ids))
