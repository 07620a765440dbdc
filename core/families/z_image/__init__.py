"""Z-Image (Tongyi-MAI, 2025): 30 single-stream layers over text and image, both refined by two layers of their own before."""

from ..defaults import Defaults

NAME = "z_image"
TITLE = "Z-Image"
# The layers are those that others found (FreeFuse); the rest is that of Flux.2's authors
DEFAULTS = Defaults(first_layer=16 / 29, last_layer=25 / 29, first_step=0.0, temperature=1000.0, softmax_first=False)
PATCH, PIXELS = 2, 16
CONCEPT_POSITION = 4  # of the text's, from 1: where a prompt begins, after the three tokens of its template
