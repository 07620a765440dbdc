"""Lumina 2 in diffusers' naming (Lumina2Transformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...stream import TextStream
from ..flux1.diffusers import encode, hooked, keys
from ..naming import Layers, Pipeline
from ..z_image.comfyui import between_norms
from ..z_image.diffusers import blocks, fits, gate, rotations
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "before", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "gate",
           "hooked", "keys", "pictures", "reading", "rotations"]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """See Z-Image's. The text's places are counted from 0 here; time, from noise to picture, is not scaled."""
    embed, tables = model.time_caption_embed, model.rope_embedder.freqs_cis
    turn = torch.cat([table[place] for table, place in zip(tables, (CONCEPT_POSITION - 1, 0, 0))]).to(vectors.device)
    turns, states = turn.expand(1, vectors.shape[1], -1), embed.caption_embedder(vectors)
    for layer in model.context_refiner:
        states = layer(states, None, turns)
    time = embed.timestep_embedder(embed.time_proj(1 - timesteps).to(vectors.dtype))
    return states.expand(len(timesteps), -1, -1), time, rotations(turns)[:, :, :1]


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """A Lumina2TransformerBlock, as it is for text and image alike. Keys and values have fewer heads."""
    attn, mod = module.attn, module.norm1

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = attn.to_q(x).unflatten(-1, (attn.heads, -1))
        k, v = (to_part(x).unflatten(-1, (-1, q.shape[-1])) for to_part in (attn.to_k, attn.to_v))
        k, v = (part.repeat_interleave(attn.heads // part.shape[2], dim=2).transpose(1, 2) for part in (attn.norm_k(k), v))
        return attn.norm_q(q).transpose(1, 2), k, v

    return between_norms(mod.linear(mod.silu(modulation)), (mod.norm, module.norm2, module.ffn_norm1, module.ffn_norm2), qkv,
                         attn.to_out[0], module.feed_forward)


def drawing(model: Layers) -> dict:
    """See Flux.1's: the pipeline's own choices."""
    return {"num_inference_steps": 30}


def pictures(given: dict, guided: bool) -> Tensor:
    """The noisy pictures, B x C x h x w; a negative prompt has a call of its own."""
    return given["hidden_states"]


def called(given: dict) -> tuple[tuple[int, int], Tensor, None]:
    """Rows and columns of the picture's own tokens and noise levels in 0..1, of what the transformer is given."""
    height, width = given["hidden_states"].shape[-2:]
    return (height // PATCH, width // PATCH), 1 - given["timestep"], None


def before(given: dict) -> int | list[int]:
    """How many tokens stand before the picture's in a layer, and before its RoPE: its own text's, one number a picture where the
    texts of a batch are not of one length."""
    lengths = given["encoder_attention_mask"].sum(1).tolist()
    return lengths[0] if len(set(lengths)) == 1 else lengths


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, mask, *_ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, num_images_per_prompt=len(latents))

    def call(noisy: Tensor, level: float) -> dict:
        return dict(hidden_states=noisy.to(embeds.dtype), encoder_hidden_states=embeds, encoder_attention_mask=mask,
                    timestep=torch.full((len(noisy),), 1 - level, device=noisy.device))

    return call
