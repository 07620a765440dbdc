"""Ovis-Image (Alibaba, 2025): 6 double-stream blocks and 27 single-stream ones, Flux.1's with gated MLPs, without a pooled vector."""

from ..flux1 import DEFAULTS, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "ovis_image"
TITLE = "Ovis-Image"
