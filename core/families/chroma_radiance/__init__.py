"""Chroma Radiance (lodestones, 2025): Chroma on pixels, of which a token covers 16 x 16."""

from ..chroma import DEFAULTS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "chroma_radiance"
TITLE = "Chroma Radiance"
PATCH, PIXELS = 16, 16
