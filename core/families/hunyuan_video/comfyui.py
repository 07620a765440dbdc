"""HunyuanVideo in Black Forest Labs' naming, as ComfyUI holds it: its blocks are Flux's."""

from __future__ import annotations

from torch import Tensor

from ..flux1.comfyui import TOKENIZE, block, blocks, timestep_embedding
from ..naming import Layers
from . import COMPRESSION, DEFAULTS, NAME, PATCH, PIXELS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TEXT_KEYS", "TOKENIZE", "begin", "block", "blocks", "fits", "picture"]

TEXT_KEYS = ("llama",)


def fits(model: Layers) -> bool:
    """Whether it is the one for videos; those for pictures have tokens without a third side, and some few-step ones a second time."""
    return list(model.patch_size) == [1, PATCH, PATCH] and model.time_r_in is None


def picture(args: dict, count: int, seen: dict) -> tuple[Tensor, int, int]:
    """See Flux.1's. A reference's tokens stand before the video's own. The text stands before both; after them in ComfyUI before
    0.4, which does not tell a block's type.
    """
    if "txt" in args:
        seen["text"] = args["txt"].shape[1]
    end = args["img"].shape[1] + (seen["text"] if "txt" in args else 0)
    if "block_type" not in args["transformer_options"]:
        end -= seen["text"]
    return args["pe"], end - count, end


def begin(model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, None]:
    """Concept states B x C x D, and their modulation vector B x D. At position zero RoPE is the identity.

    Each concept passes the token refiner as a prompt of one token, for in a common one concepts would mix. vectors: 1 x C x
    D_text. timesteps in 0..1000, guidance: one a clip, B. The pooled vector is zero, not the prompt's.
    """
    vec = model.time_in(timestep_embedding(timesteps, factor=1.0).to(vectors.dtype))
    if model.vector_in is not None:
        vec = vec + model.vector_in(vectors.new_zeros(1, model.vector_in.in_layer.in_features))
    if guidance is not None and model.params.guidance_embed:
        vec = vec + model.guidance_in(timestep_embedding(guidance).to(vectors.dtype))
    clips, concepts = len(timesteps), vectors.shape[1]
    alone = vectors.transpose(0, 1).repeat(clips, 1, 1)
    refined = model.txt_in(alone, timesteps.repeat_interleave(concepts), None)
    return refined.view(clips, concepts, -1), vec, None
