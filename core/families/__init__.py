"""Families of models: a folder each, and in it one file for each naming of the same layers.

A folder says NAME, TITLE (for people), DEFAULTS, PATCH and PIXELS (a token's side in latent values and in pixels).
A naming (comfyui, diffusers: that of the library it is named after) says the same and, in its names,
  blocks(model, singles)  the blocks whose attention is watched, in the order of the pass; where single-stream blocks follow
                          double-stream ones, the first `singles` (default 0, None for all) of them too
  begin(model, vectors, timesteps, guidance)   the concepts' first states, their modulation and their RoPE, or None:
                          they stand where the prompt's first token does
  block(module, modulation, index)   what one of the blocks, the index-th, does to concept tokens: see core.stream.Block
diffusers also says what its pipelines have to be asked for and told:
  fits(model)             whether a transformer of the class that headless/families.py has for it is one of this family
  called(given)           grid of the picture's own tokens, noise levels and guidance, of what the transformer is given
  hooked(attn)            the layers of a block's attention between which it is watched
  keys(attn, seen), rotations(...)   keys and RoPE of an attention, of what its layers make and are given
  BOTH_PROMPTS            true where guided pipelines give the negative and the positive prompt in one call, in this order
  drawing(model)          what a pipeline is told besides the prompt
  encode(pipe, pictures), reading(pipe, latents, ...)   how pictures that exist are read; left out where they cannot be
  before, pictures, gate  where text and image are one sequence in all blocks: see naming.SharedNaming
comfyui also says what ComfyUI has to be asked for:
  fits(model)             whether a transformer of the class that nodes/host.py has for it is one of this family
  picture(args, count, seen)   which tokens of a block's attention are the picture's own, and their RoPE; seen: what the
                          blocks before have left there in the same call
  patches(seen)           where ComfyUI lets no block be replaced, but numbers them (block_index of transformer_options): patches
                          of its own, by its names, that leave there what it tells of RoPE; `picture` is given the model for args
  BARE = True             where ComfyUI tells neither a call of the transformer nor which block an attention belongs to; then
                          there is no `picture`
  TEXT_KEYS, TOKENIZE     which text encoder's row holds the concepts' tokens, and how it is asked to take them literally;
                          of several the first that is loaded
"""

from . import chroma, flux1, flux2, krea2, lumina2, qwen_image, sd3, z_image
from .defaults import BLOCKS, Defaults

__all__ = ["BLOCKS", "FAMILIES", "Defaults"]

FAMILIES = {family.NAME: family for family in (flux1, flux2, z_image, lumina2, krea2, qwen_image, chroma, sd3)}
