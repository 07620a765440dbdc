"""Qwen-Image in diffusers' naming (QwenImageTransformer2DModel), which is ComfyUI's too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flux1.diffusers import hooked, keys, pack
from ..naming import Layers, Pipeline
from . import AT_FIRST_TOKEN, DEFAULTS, NAME, PATCH, PIXELS, comfyui
from .comfyui import block, fits

__all__ = ["AT_FIRST_TOKEN", "DEFAULTS", "NAME", "PATCH", "PIXELS", "begin", "block", "blocks", "called", "drawing", "encode", "fits",
           "hooked", "keys", "reading", "rotations"]


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """All blocks, none of which is single-stream."""
    return [*model.transformer_blocks]


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """See comfyui.begin; here the model's own forward rounds timesteps to its type."""
    return comfyui.begin(model, vectors, timesteps.to(vectors.dtype), guidance)


def drawing(model: Layers) -> dict:
    """See Flux.1's. Without a negative prompt it is not guided; this one is the model page's."""
    return {"num_inference_steps": 50, "negative_prompt": " "}


def called(given: dict) -> tuple[tuple[int, int], Tensor, None]:
    """Rows and columns of the picture's own tokens, which stand first, and noise levels in 0..1, of what the transformer is given."""
    shapes = given["img_shapes"][0]
    _, rows, columns = shapes[0] if isinstance(shapes, list) else shapes
    return (rows, columns), given["timestep"], None


def rotations(image: Tensor, text: Tensor) -> Tensor:
    """RoPE as this model keeps it, complex numbers T x d/2 -> 1 x 1 x T x d/2 x 2 x 2, text first, as in flux/math.py."""
    turns = torch.cat((text, image))
    return torch.stack((turns.real, -turns.imag, turns.imag, turns.real), dim=-1).unflatten(-1, (2, 2))[None, None]


def encode(pipe: Pipeline, pictures: Tensor) -> Tensor:
    """Model latents B x 16 x H/8 x W/8 of pictures B x 3 x H x W in 0..1, on the pipeline's device. The VAE is one for videos."""
    vae = pipe.vae
    latents = vae.encode((2 * pictures[:, :, None] - 1).to(pipe._execution_device, vae.dtype)).latent_dist.mode()[:, :, 0].float()
    mean, deviation = (torch.tensor(values).to(latents)[:, None, None] for values in (vae.config.latents_mean, vae.config.latents_std))
    return (latents - mean) / deviation


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, mask = pipe.encode_prompt(prompt, num_images_per_prompt=len(latents))
    shapes = [[(1, latents.shape[-2] // PATCH, latents.shape[-1] // PATCH)]] * len(latents)

    def call(noisy: Tensor, level: float) -> dict:
        return dict(hidden_states=pack(noisy).to(embeds.dtype), encoder_hidden_states=embeds, encoder_hidden_states_mask=mask,
                    img_shapes=shapes, timestep=torch.full((len(noisy),), level).to(embeds))

    return call
