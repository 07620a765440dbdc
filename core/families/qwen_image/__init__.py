"""Qwen-Image and Qwen-Image-Edit (Alibaba, 2025): 60 double-stream blocks and no single-stream ones, without a pooled vector."""

from ..defaults import Defaults

NAME = "qwen_image"
TITLE = "Qwen-Image and Qwen-Image-Edit"
DEFAULTS = Defaults(first_layer=20 / 59, last_layer=30 / 59, first_step=0.0, temperature=1.0,  # layers from FreeFuse's guide,
                    softmax_first=True)  # the rest is Flux.1's; none of it could be tried on the real weights
PATCH, PIXELS = 2, 16
AT_FIRST_TOKEN = True  # concepts stand there; where that is depends on the picture's size
