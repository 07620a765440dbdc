"""Chroma (lodestones, 2025): Flux.1's blocks, their modulation computed by a small network, without a pooled vector."""

from ..flux1 import DEFAULTS, PATCH, PIXELS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "chroma"
TITLE = "Chroma"
