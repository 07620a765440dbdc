"""Families of models: a folder each, and in it one file for each naming of the same layers.

A folder says NAME, TITLE (for people), DEFAULTS, PATCH and PIXELS (a token's side in latent values and in pixels).
A naming (comfyui, diffusers: that of the library it is named after) says the same and, in its names,
  blocks(model, singles)  the blocks whose attention is watched, in the order of the pass; where single-stream blocks follow
                          double-stream ones, the first `singles` (default 0, None for all) of them too
  begin(model, vectors, timesteps, guidance)   the concepts' first states, their modulation and their RoPE, or None:
                          they stand where the prompt's first token does
  block(module, modulation, index)   what one of the blocks, the index-th, does to concept tokens: see core.stream.Block
diffusers also says
  hooked(attn)            the layers of a block's attention between which it is watched
comfyui also says what ComfyUI has to be asked for:
  fits(model)             whether a transformer of the class that nodes/host.py has for it is one of this family
  picture(args, count, seen)   which tokens of a block's attention are the picture's own, and their RoPE; seen: what the
                          blocks before have left there in the same call
  patches(seen)           where ComfyUI lets no block be replaced, but numbers them (block_index of transformer_options): patches
                          of its own, by its names, that leave there what it tells of RoPE; `picture` is given the model for args
  TEXT_KEYS, TOKENIZE     which text encoder's row holds the concepts' tokens, and how it is asked to take them literally
"""

from . import chroma, flux1, flux2, krea2, lumina2, qwen_image, z_image
from .defaults import BLOCKS, Defaults

__all__ = ["BLOCKS", "FAMILIES", "Defaults"]

FAMILIES = {family.NAME: family for family in (flux1, flux2, z_image, lumina2, krea2, qwen_image, chroma)}
