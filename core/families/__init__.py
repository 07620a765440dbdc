"""Families of models: a folder each, and in it one file for each naming of the same layers.

A folder says NAME, TITLE (for people), DEFAULTS, PATCH and PIXELS (a token's side in latent values and in pixels).
A naming (comfyui, diffusers: that of the library it is named after) says the same, and in its names what naming.py lists:
which blocks are watched, how concept states begin, what a block does to them, and what its library has to be asked for and told.
"""

from . import (
    chroma,
    chroma_radiance,
    flux1,
    flux2,
    hunyuan_image,
    hunyuan_video,
    hunyuan_video15,
    krea2,
    longcat_image,
    lumina2,
    ovis_image,
    qwen_image,
    sd3,
    wan,
    wan22,
    z_image,
)
from .defaults import BLOCKS, Defaults

__all__ = ["BLOCKS", "FAMILIES", "Defaults"]

FAMILIES = {family.NAME: family for family in (
    flux1, flux2, z_image, lumina2, krea2, qwen_image, chroma, chroma_radiance, ovis_image, longcat_image, sd3,
    hunyuan_image, hunyuan_video, hunyuan_video15, wan, wan22)}
