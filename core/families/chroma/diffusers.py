"""Chroma in diffusers' naming (ChromaTransformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...stream import ParallelStream, TextStream
from ..flux1.diffusers import blocks, called, encode, fits, hooked, keys, pack, positions, rotations, shared_qkv, text_qkv
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "hooked", "keys",
           "reading", "rotations"]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and the text's modulations, B x blocks x 6 x D; the three of a
    single-stream block stand there twice. At position zero RoPE is the identity.

    vectors: 1 x C x D_text. timesteps in 0..1, one a picture, B; the embedding expects a thousand times as much.
    """
    made = model.distilled_guidance_layer(model.time_text_embed(1000 * timesteps.to(vectors.dtype)))
    double, single = 6 * len(model.transformer_blocks), 3 * len(model.single_transformer_blocks)
    text = made[:, single + double:single + 2 * double].unflatten(1, (-1, 6))  # of single-stream blocks, the image's, the text's
    shared = made[:, :single].unflatten(1, (-1, 3)).repeat(1, 1, 2, 1)
    return model.context_embedder(vectors).expand(len(made), -1, -1), torch.cat((text, shared), dim=1), None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream | ParallelStream:
    """The text-stream half of a ChromaTransformerBlock, or a ChromaSingleTransformerBlock."""
    parts = modulation[:, index].chunk(6, dim=1)
    if hasattr(module, "proj_mlp"):
        qkv = shared_qkv(module.attn)
        return ParallelStream(*parts[:3], norm=module.norm.norm, enter=lambda x: (*qkv(x), module.act_mlp(module.proj_mlp(x))),
                              leave=module.proj_out)
    return TextStream(*parts, norm1=module.norm1_context.norm, qkv=text_qkv(module.attn), to_out=module.attn.to_add_out,
                      norm2=module.norm2_context, mlp=module.ff_context)


def drawing(model: Layers) -> dict[str, Any]:
    """See Flux.1's."""
    return {"num_inference_steps": 35}


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float,
            pooled_prompt: bool) -> Callable[[Tensor, float], dict[str, Any]]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, text_ids, mask, *_ = pipe.encode_prompt(prompt, num_images_per_prompt=len(latents), do_classifier_free_guidance=False)
    places = positions(latents).to(text_ids)
    mask = torch.cat((mask, mask.new_ones(len(latents), len(places))), dim=1)  # padding is not seen

    def call(noisy: Tensor, level: float) -> dict[str, Any]:
        return dict(hidden_states=pack(noisy).to(embeds.dtype), encoder_hidden_states=embeds, txt_ids=text_ids, img_ids=places,
                    attention_mask=mask, timestep=torch.full((len(noisy),), level).to(embeds))

    return call
