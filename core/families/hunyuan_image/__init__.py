"""HunyuanImage 2.1 (Tencent, 2025): HunyuanVideo's blocks over a picture's tokens of 32 pixels, without a pooled vector."""

from ..flux1 import DEFAULTS

__all__ = ["DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "hunyuan_image"
TITLE = "HunyuanImage 2.1"
PATCH, PIXELS = 1, 32
