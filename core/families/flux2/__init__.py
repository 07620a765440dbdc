"""Flux.2 (Black Forest Labs, 2025): dev has 8 double-stream blocks, then 48 single-stream ones; klein fewer of both."""

from ..defaults import Defaults

NAME = "flux2"
TITLE = "Flux.2 (dev and klein)"
DEFAULTS = Defaults(first_layer=5 / 7, last_layer=1.0, first_step=0.7, temperature=1000.0, softmax_first=False)  # the authors' code
PATCH, PIXELS = 1, 16
CONCEPT_POSITION = 510  # among the text tokens, of which there are 512; the authors' choice
