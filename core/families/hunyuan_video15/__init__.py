"""HunyuanVideo 1.5 (Tencent, 2025): 54 double-stream blocks and no single-stream ones, without a pooled vector."""

from ..flux1 import DEFAULTS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "hunyuan_video15"
TITLE = "HunyuanVideo 1.5"
PATCH, PIXELS, COMPRESSION = 1, 16, 4
