"""LongCat-Image (Meituan, 2025): Flux.1's blocks, 10 double-stream and 20 single-stream ones, without a pooled vector."""

from ..flux1 import DEFAULTS, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "longcat_image"
TITLE = "LongCat-Image and LongCat-Image-Edit"
