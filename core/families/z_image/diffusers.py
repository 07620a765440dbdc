"""Z-Image in diffusers' naming (ZImageTransformer2DModel). Submodules are called, never read, as in Flux.1's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...stream import TextStream
from ..flux1.diffusers import encode, hooked, keys, shared_qkv
from ..naming import Layers, Pipeline
from . import CONCEPT_POSITION, DEFAULTS, NAME, PATCH, PIXELS, comfyui

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "before", "begin", "block", "blocks", "called", "drawing", "encode", "fits", "gate",
           "hooked", "keys", "pictures", "reading", "rotations"]


def fits(model: Layers) -> bool:
    """Every one."""
    return True


def blocks(model: Layers, singles: int | None = 0) -> list[Layers]:
    """The layers over text and image, whatever `singles`."""
    return list(model.layers)


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """See comfyui.begin; timesteps are noise levels, too."""
    place = torch.zeros(vectors.shape[1], len(model.axes_dims), dtype=torch.int32, device=vectors.device)
    place[:, 0] = CONCEPT_POSITION
    turns, states = model.rope_embedder(place)[None], model.cap_embedder(vectors)
    for layer in model.context_refiner:
        states = layer(states, None, turns)
    time = model.t_embedder((1 - timesteps) * model.t_scale).to(vectors.dtype)
    return states.expand(len(timesteps), -1, -1), time, rotations(turns)[:, :, :1]


def block(module: Layers, modulation: Tensor, index: int) -> TextStream:
    """A ZImageTransformerBlock, as it is for text and image alike."""
    return comfyui.layer(module, modulation, shared_qkv(module.attention), module.attention.to_out[0])


def drawing(model: Layers) -> dict:
    """See Flux.1's. These are Turbo's, and the model does not tell whether it is one."""
    return {"num_inference_steps": 9, "guidance_scale": 0.0}


def pictures(given: dict, guided: bool) -> Tensor:
    """The noisy pictures, B x C x h x w. The negative prompt's, where there is one, are the same once more, after them."""
    latents = given["x"]
    if isinstance(latents[0], list):  # several pictures in one
        return torch.stack([of_one[-1] for of_one in latents])[:, :, 0]
    latents = torch.stack(latents)[:, :, 0]
    half = len(latents) // 2
    return latents[:half] if guided and half and torch.equal(latents[:half], latents[half:]) else latents


def called(given: dict) -> tuple[tuple[int, int] | None, Tensor, None]:
    """Rows and columns of the picture's own tokens, which stand first, and noise levels in 0..1, of what the transformer is given.

    Not of several pictures in one: there text and references come before.
    """
    latents = given["x"][0]
    grid = None if isinstance(latents, list) else (latents.shape[-2] // PATCH, latents.shape[-1] // PATCH)
    return grid, 1 - given["t"], None


def before(given: dict) -> int:
    """How many tokens stand before the picture's in a layer, and before its RoPE."""
    return 0


def gate(attn: Layers) -> None:
    """There is none."""


def rotations(turns: Tensor) -> Tensor:
    """RoPE as this model gives it to an attention, complex numbers B x T x d/2 -> B x 1 x T x d/2 x 2 x 2, as in flux/math.py."""
    return torch.stack((turns.real, -turns.imag, turns.imag, turns.real), dim=-1).unflatten(-1, (2, 2))[:, None]


def reading(pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float, pooled_prompt: bool) -> Callable[[Tensor, float], dict]:
    """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments. See Flux.1's."""
    embeds, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)

    def call(noisy: Tensor, level: float) -> dict:
        return dict(x=list(noisy[:, :, None].to(embeds[0].dtype)), t=torch.full((len(noisy),), 1 - level, device=noisy.device),
                    cap_feats=embeds * len(noisy))

    return call
