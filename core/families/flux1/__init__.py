"""Flux.1 (Black Forest Labs, 2024): 19 double-stream blocks, then 38 single-stream ones."""

from ..defaults import Defaults

NAME = "flux1"
TITLE = "Flux.1 (dev, schnell, Fill, Kontext and models made from them)"
DEFAULTS = Defaults(first_layer=15 / 18, last_layer=1.0, first_step=0.0, temperature=1.0, softmax_first=True)  # the paper
PATCH, PIXELS = 2, 16
