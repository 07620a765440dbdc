"""Krea 2 (Krea, 2026): 28 single-stream blocks over text and image, the text fused of twelve layers of its encoder."""

from ..defaults import Defaults

NAME = "krea2"
TITLE = "Krea 2"
# Layers and temperature are those that others found (rockerBOO's ComfyUI-Concept-Diffusion)
DEFAULTS = Defaults(first_layer=24 / 27, last_layer=1.0, first_step=0.0, temperature=1000.0, softmax_first=False)
PATCH, PIXELS = 2, 16
