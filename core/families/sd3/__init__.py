"""Stable Diffusion 3 and 3.5 (Stability AI, 2024): joint blocks, which are double-stream ones, without RoPE.

The authors of the method have published a version for SD3 (github.com/helblazer811/ConceptAttention, concept_attention/sd3). Like
theirs, concepts are CLIP's tokens, for CLIP is always there and T5 often left out. Where this differs, it is as with Flux:
- every phrase is encoded on its own, not all concepts as one text in which the later ones know of the earlier;
- no start token rides along with the concepts;
- the pooled vector is zero, not the prompt's: the model was trained with text encoders left out, and maps do not depend on the prompt;
- the image's outputs are those of the picture as it is drawn, with the prompt, not of a second attention over concepts and image;
- concepts' outputs are not brought to length 1 before the scores.
"""

from ..defaults import Defaults

NAME = "sd3"
TITLE = "SD3 and SD3.5"
DEFAULTS = Defaults(first_layer=9 / 23, last_layer=9 / 23, first_step=0.0, temperature=1.0,  # layer 9 of 24: Seg4Diff (2509.18096),
                    softmax_first=True)  # the rest is Flux.1's; none of it could be tried on the real weights
PATCH, PIXELS = 2, 16
