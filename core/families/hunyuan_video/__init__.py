"""HunyuanVideo (Tencent, 2024): Flux.1's blocks over the tokens of a video, 20 double-stream, then 40 single-stream ones."""

from ..flux1 import DEFAULTS

__all__ = ["COMPRESSION", "DEFAULTS", "NAME", "PATCH", "PIXELS", "TITLE"]

NAME = "hunyuan_video"
TITLE = "HunyuanVideo"
PATCH, PIXELS, COMPRESSION = 2, 16, 4
