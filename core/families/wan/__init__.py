"""Wan 2.1 and 2.2 (Alibaba, 2025): 30 or 40 blocks of self-attention, then cross-attention to the text, which has no stream of its own."""

from ..defaults import Defaults

NAME = "wan"
TITLE = "Wan 2.1 and Wan 2.2 (14B)"
# All blocks, for none is known to be better; temperature by the size of the scores. None of it could be tried on the real weights
DEFAULTS = Defaults(first_layer=0.0, last_layer=1.0, first_step=0.0, temperature=100.0, softmax_first=True)
PATCH, PIXELS, COMPRESSION = 2, 16, 4
KEYS_ONLY = True  # there are no concept tokens, only their keys: the one space is cross-attention
CHANNELS = 16  # of the latents, which tells it from 2.2's small model
