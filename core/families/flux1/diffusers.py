"""Flux.1 in diffusers' naming (FluxTransformer2DModel). The family is the same: recordings of both are interchangeable.

Submodules are called, never read: quantised and offloaded weights and LoRA depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ...stream import ParallelStream, TextStream
from ..naming import Layers, Pipeline
from . import DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "hooked", "keys",
           "reading", "rotations"]

_FILL = 64 + 256  # channels of a token that the Fill model sees besides the latents: the picture around the hole, and the mask


def fits(model: Layers) -> bool:
    """Every one."""
    return True


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """The double-stream blocks, then the first `singles` single-stream ones (None: all)."""
    return [*model.transformer_blocks, *model.single_transformer_blocks[:singles]]


def hooked(attn: Layers) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """The layers of an attention that make the keys before RoPE and the values, beside or without other things, and the one that is
    given the attention's output; None where the attention returns it as it is."""
    values = attn.to_qkv if attn.fused_projections else attn.to_v
    return attn.norm_k, values, None if attn.pre_only else attn.to_out[0]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D = context_embedder(vectors), and their modulation vector B x D. At position zero RoPE is the identity.

    vectors: 1 x C x D_text. timesteps in 0..1, guidance: one a picture, B; the embedding itself expects a
    thousand times as much, as the model's own forward gives it. The pooled vector is zero, not the prompt's.
    """
    pooled = vectors.new_zeros(len(timesteps), model.config.pooled_projection_dim)
    times = [1000 * value.to(vectors.dtype) for value in (timesteps, guidance) if value is not None]
    vec = model.time_text_embed(*times, pooled)
    return model.context_embedder(vectors).expand(len(vec), -1, -1), vec, None


def block(module: Layers, modulation: Tensor, index: int, activation: Callable | None = None) -> TextStream | ParallelStream:
    """The text-stream half of a FluxTransformerBlock, or a FluxSingleTransformerBlock. activation: of the latter's MLP, where it is not
    the block's `act_mlp`."""
    if hasattr(module, "proj_mlp"):
        norm, activate = module.norm, activation or module.act_mlp
        parts = norm.linear(norm.silu(modulation))[:, None].chunk(3, dim=-1)
        qkv = shared_qkv(module.attn)
        return ParallelStream(*parts, norm=norm.norm, enter=lambda x: (*qkv(x), activate(module.proj_mlp(x))), leave=module.proj_out)
    norm = module.norm1_context
    parts = norm.linear(norm.silu(modulation))[:, None].chunk(6, dim=-1)  # shift, scale, gate, for the attention and the MLP
    return TextStream(*parts, norm1=norm.norm, qkv=text_qkv(module.attn), to_out=module.attn.to_add_out, norm2=module.norm2_context,
                      mlp=module.ff_context)


def text_qkv(attn: Layers) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The text's queries, keys and values of an attention of diffusers' Flux models: see core.stream.Block."""
    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = attn.to_added_qkv(x).chunk(3, dim=-1) if attn.fused_projections else (
            attn.add_q_proj(x), attn.add_k_proj(x), attn.add_v_proj(x))
        return split_heads(projected, attn.heads, attn.norm_added_q, attn.norm_added_k)

    return qkv


def shared_qkv(attn: Layers) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The same of an attention whose weights text and image share."""
    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = attn.to_qkv(x).chunk(3, dim=-1) if attn.fused_projections else (attn.to_q(x), attn.to_k(x), attn.to_v(x))
        return split_heads(projected, attn.heads, attn.norm_q, attn.norm_k)

    return qkv


def split_heads(projected: Iterable[Tensor], heads: int, norm_q: nn.Module, norm_k: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each B x T x D -> queries and keys, normalised, and values, each B x heads x T x d."""
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in projected)
    return norm_q(q).transpose(1, 2), norm_k(k).transpose(1, 2), v.transpose(1, 2)


def drawing(model: Layers) -> dict:
    """What a pipeline is told besides the prompt where nothing else is asked for: the model's own choices."""
    return {"num_inference_steps": 28 if model.config.guidance_embeds else 4}


def called(given: dict) -> tuple[tuple[int, int] | None, Tensor, Tensor | None]:
    """Rows and columns of the picture's own tokens, which stand first (see grid), noise levels in 0..1 and guidance, of what the
    transformer is given.
    """
    return grid(given["img_ids"]), given["timestep"], given.get("guidance")


def keys(attn: nn.Module, seen: Tensor) -> Tensor:
    """Keys B x heads x N x d, of what the first layer of `hooked` has made."""
    return seen.transpose(1, 2)


def rotations(cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE as diffusers gives it to an attention, of text, then image tokens, twice T x d with every value repeated ->
    1 x 1 x T x d/2 x 2 x 2, as in flux/math.py.
    """
    cos, sin = cos[:, ::2], sin[:, ::2]
    return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))[None, None]


def grid(ids: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the picture's own tokens, from the positions N x 3 (or B x N x 3) of all image tokens.

    The first column is 0 for the picture and another number for references (Kontext), which stand after it.
    None when the picture's tokens do not stand row by row.
    """
    ids = (ids[0] if ids.ndim == 3 else ids).cpu()  # waits for the device once
    own = _run_length(ids[:, 0])
    columns = _run_length(ids[:own, 1])
    if own % columns:
        return None
    places = ids[:own].unflatten(0, (-1, columns))
    in_rows = (places[..., 1] == places[:, :1, 1]).all() and (places[..., 2] == places[:1, :, 2]).all()
    return (own // columns, columns) if in_rows else None


def _run_length(values: Tensor) -> int:
    """How many of the first values are the same."""
    return int((values == values[0]).cumprod(0).sum())


def encode(pipe: Pipeline, pictures: Tensor) -> Tensor:
    """Model latents B x 16 x H/8 x W/8 of pictures B x 3 x H x W in 0..1, on the pipeline's device."""
    vae = pipe.vae
    latents = vae.encode((2 * pictures - 1).to(pipe._execution_device, vae.dtype)).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0)) * vae.config.scaling_factor


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments.

    latents: of all pictures, B x C x h x w. prompt: what is in them. guidance_scale: for models that were distilled. pooled_prompt:
    whether the prompt's pooled vector modulates image and text.
    """
    embeds, pooled, text_ids = pipe.encode_prompt(prompt, prompt, num_images_per_prompt=len(latents))
    pooled = pooled if pooled_prompt else torch.zeros_like(pooled)
    seen, places = surroundings(pipe, latents), positions(latents)

    def call(noisy: Tensor, level: float) -> dict:
        told = dict(hidden_states=torch.cat((pack(noisy), *seen), dim=-1).to(embeds.dtype), encoder_hidden_states=embeds,
                    pooled_projections=pooled, txt_ids=text_ids, img_ids=places.to(text_ids),
                    timestep=torch.full((len(noisy),), level).to(embeds))
        if pipe.transformer.config.guidance_embeds:
            told["guidance"] = torch.full((len(noisy),), guidance_scale, device=embeds.device)
        return told

    return call


def surroundings(pipe: Pipeline, latents: Tensor) -> list[Tensor]:
    """What a token holds besides the latents: nothing, or for Fill an empty picture and a mask of all of it. B x N x channels.

    Raises ValueError for models made to see something else.
    """
    batch, channels, height, width = latents.shape
    more = pipe.transformer.config.in_channels - 4 * channels
    if more == 0:
        return []
    if more != _FILL:
        raise ValueError(f"This transformer takes {4 * channels + more} channels a token, expected {4 * channels} (dev, schnell, "
                         f"Kontext) or {4 * channels + _FILL} (Fill). Models with a control picture cannot be used here.")
    empty = encode(pipe, latents.new_full((batch, 3, 8 * height, 8 * width), 0.5))
    return [pack(empty), latents.new_ones(batch, height * width // 4, 256)]


def pack(latents: Tensor) -> Tensor:
    """Latents B x C x h x w -> tokens B x (h/2 * w/2) x 4C."""
    return pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def positions(latents: Tensor) -> Tensor:
    """Positions of the tokens of latents B x C x h x w: (h/2 * w/2) x 3, row by row."""
    height, width = latents.shape[-2:]
    return torch.cartesian_prod(torch.zeros(1), torch.arange(height / 2), torch.arange(width / 2))
