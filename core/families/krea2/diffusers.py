"""Krea 2 in diffusers' naming (Krea2Transformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ...stream import TextStream
from ..flux1.diffusers import grid, keys, pack, positions, rotations
from ..naming import Layers, Pipeline
from ..qwen_image.diffusers import encode
from . import DEFAULTS, NAME, PATCH, PIXELS, comfyui

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "before", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "gate",
           "hooked", "keys", "pictures", "reading", "rotations"]


def fits(model: Layers) -> bool:
    """Every one."""
    return True


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """All blocks, whatever `singles`."""
    return list(model.transformer_blocks)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See comfyui.begin."""
    states = model.txt_in(model.text_fusion(vectors.unflatten(-1, (model.config.num_text_layers, -1))))
    time = model.time_mod_proj(gelu(model.time_embed(timesteps, dtype=vectors.dtype), approximate="tanh"))
    return states.expand(len(timesteps), -1, -1), time, None


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """A Krea2TransformerBlock, as it is for text and image alike."""
    attn = module.attn
    parts = (modulation.unflatten(-1, (6, -1)) + module.scale_shift_table).unbind(-2)
    return comfyui.single_stream(parts, module.norm1, (attn.to_q, attn.to_k, attn.to_v, attn.to_gate), attn.num_heads, attn.num_kv_heads,
                                 lambda q, k: (attn.norm_q(q), attn.norm_k(k)), attn.to_out[0], module.norm2, module.ff)


def hooked(attn: Layers) -> tuple[nn.Module, nn.Module, nn.Module]:
    """See Flux.1's."""
    return attn.norm_k, attn.to_v, attn.to_out[0]


def gate(attn: Layers) -> nn.Module:
    """The layer whose output, through a sigmoid, closes on what attention gives before `hooked` sees it."""
    return attn.to_gate


def drawing(model: Layers) -> dict:
    """See Flux.1's: the pipeline's own choices."""
    return {"num_inference_steps": 28}


def called(given: dict) -> tuple[tuple[int, int] | None, Tensor, None]:
    """Rows and columns of the picture's own tokens and noise levels in 0..1, of what the transformer is given."""
    return grid(given["position_ids"][before(given):]), given["timestep"], None


def before(given: dict) -> int:
    """How many tokens stand before the picture's in a block, and before its RoPE: the text's."""
    return given["encoder_hidden_states"].shape[1]


def pictures(given: dict, guided: bool) -> Tensor:
    """The noisy pictures' tokens; a negative prompt has a call of its own."""
    return given["hidden_states"]


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, mask = pipe.encode_prompt(prompt, num_images_per_prompt=len(latents))
    places = torch.cat((torch.zeros(embeds.shape[1], 3), positions(latents))).to(latents.device)  # all text stands at zero

    def call(noisy: Tensor, level: float) -> dict:
        return dict(hidden_states=pack(noisy).to(embeds.dtype), encoder_hidden_states=embeds, encoder_attention_mask=mask,
                    timestep=torch.full((len(noisy),), level).to(embeds), position_ids=places)

    return call
