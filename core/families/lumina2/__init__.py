"""Lumina Image 2.0 (Alpha-VLLM, 2025): Z-Image's forerunner, 26 single-stream layers."""

from ..z_image import DEFAULTS, PATCH, PIXELS

__all__ = ["CONCEPT_POSITION", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "lumina2"
TITLE = "Lumina 2"
CONCEPT_POSITION = 2  # of the text's, from 1: after the token that begins it
