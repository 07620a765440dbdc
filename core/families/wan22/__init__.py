"""Wan 2.2 5B (Alibaba, 2025): Wan's blocks over the latents of a VAE that makes a picture 16 times smaller."""

from ..wan import COMPRESSION, DEFAULTS, KEYS_ONLY, PATCH

__all__ = ["CHANNELS", "COMPRESSION", "DEFAULTS", "KEYS_ONLY", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "wan22"
TITLE = "Wan 2.2 (5B)"
PIXELS, CHANNELS = 32, 48
