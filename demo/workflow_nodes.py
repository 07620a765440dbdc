"""The nodes that our workflows consist of, as ComfyUI describes them: inputs, widgets in their order with defaults, outputs.

tests/host/test_templates.py compares this table with what every host says of its nodes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..core.concepts import DEFAULT_CONTRAST

_PYPROJECT = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
_VERSION = re.search(r'^version = "([^"]+)"', _PYPROJECT, re.MULTILINE)[1]
PACK = {"cnr_id": "concept-saliency", "ver": _VERSION, "category": "concept saliency"}
CORE = {"cnr_id": "comfy-core", "ver": "0.3.64"}  # the oldest ComfyUI that this pack is tested on
LOOKS = {"ours": {"color": "#232", "bgcolor": "#353"}, "note": {"color": "#432", "bgcolor": "#653"}}


@dataclass(frozen=True)
class Kind:
    """inputs, outputs: name -> type; widgets: name -> value, with what the frontend adds to them; room: pixels for text and pictures."""

    inputs: dict[str, str] = field(default_factory=dict)
    widgets: dict = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    room: int = 0
    width: int = 340
    look: str = "host"

    @property
    def height(self) -> int:
        return 14 + 20 * max(len(self.inputs), len(self.outputs)) + 25 * len(self.widgets) + self.room

    @property
    def origin(self) -> dict:
        """Whose node it is, as ComfyUI's own workflows say it."""
        return {"host": CORE, "ours": {key: PACK[key] for key in ("cnr_id", "ver")}, "note": {}}[self.look]


def _slots(text: str) -> dict[str, str]:
    """'model clip image:IMAGE' -> name -> type; a name without a type has its own in capitals."""
    return {name: kind or name.upper() for name, _, kind in (word.partition(":") for word in text.split())}


def _kind(inputs: str = "", outputs: str = "", room: int = 0, width: int = 340, look: str = "host", /, **widgets) -> Kind:
    return Kind(_slots(inputs), widgets, _slots(outputs), room, width, look)


_TEXT, _PICTURE = 70, 320
_METHOD = {"token": "mean", "cross_attention": False}
_WORDS = {"concepts": "", "contrast": DEFAULT_CONTRAST}

KINDS = {
    "MarkdownNote": _kind("", "", 0, 460, "note", text=""),
    # loaders
    "UNETLoader": _kind("", "MODEL", 20, unet_name="", weight_dtype="default"),
    "DualCLIPLoader": _kind("", "CLIP", 20, clip_name1="", clip_name2="", type="flux", device="default"),
    "VAELoader": _kind("", "VAE", 20, vae_name=""),
    "CheckpointLoaderSimple": _kind("", "MODEL CLIP VAE", ckpt_name=""),
    "LoadImage": _kind("", "IMAGE MASK", _PICTURE, image="", upload="image"),
    # ComfyUI's own
    "CLIPTextEncode": _kind("clip", "CONDITIONING", _TEXT, text=""),
    "FluxGuidance": _kind("conditioning", "CONDITIONING", guidance=3.5),
    "EmptySD3LatentImage": _kind("", "LATENT", width=1024, height=1024, batch_size=1),
    "KSampler": _kind("model positive:CONDITIONING negative:CONDITIONING latent_image:LATENT", "LATENT", 0, 320, seed=7,
                      control_after_generate="fixed", steps=20, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0),
    "VAEDecode": _kind("samples:LATENT vae", "IMAGE", 0, 320),
    "VAEEncode": _kind("pixels:IMAGE vae", "LATENT"),
    "SetLatentNoiseMask": _kind("samples:LATENT mask", "LATENT"),
    "DifferentialDiffusion": _kind("model", "MODEL", strength=1.0),
    "InpaintModelConditioning": _kind("positive:CONDITIONING negative:CONDITIONING vae pixels:IMAGE mask",
                                      "positive:CONDITIONING negative:CONDITIONING latent", noise_mask=True),
    "ImageCompositeMasked": _kind("destination:IMAGE source:IMAGE mask", "IMAGE", x=0, y=0, resize_source=False),
    "ConditioningSetMask": _kind("conditioning mask", "CONDITIONING", strength=1.0, set_cond_area="default"),
    "ConditioningCombine": _kind("conditioning_1:CONDITIONING conditioning_2:CONDITIONING", "CONDITIONING"),
    "CreateHookLora": _kind("prev_hooks:HOOKS", "HOOKS", 0, lora_name="", strength_model=1.0, strength_clip=1.0),
    "ConditioningSetProperties": _kind("cond_NEW:CONDITIONING mask hooks timesteps:TIMESTEPS_RANGE", "CONDITIONING", 0, 340, strength=1.0,
                                       set_cond_area="default"),
    "PreviewImage": _kind("images:IMAGE", "", _PICTURE),
    "SaveImage": _kind("images:IMAGE", "", _PICTURE, filename_prefix="ComfyUI"),
    "MaskPreview": _kind("mask", "", _PICTURE),
    "PreviewAny": _kind("source:*", "", 130),
    "SAM3_Detect": _kind("model image conditioning bboxes:BOUNDING_BOX positive_coords:STRING negative_coords:STRING",
                         "masks:MASK bboxes:BOUNDING_BOX", threshold=0.5, refine_iterations=2, individual_masks=False),
    "DrawBBoxes": _kind("bboxes:BOUNDING_BOX image", "out_image:IMAGE"),
    # this pack's
    "ConceptSaliencyDemoModel": _kind("", "model clip vae", 0, 340, "ours"),
    "ConceptAttentionApply": _kind("model clip", "model recordings:CONCEPT_RECORDINGS", 90, 380, "ours", **_WORDS, start_percent=0.0,
                                   end_percent=1.0, **_METHOD, blocks="auto", live_preview=False),
    "ConceptAttentionImage": _kind("model clip vae image latent conditioning", "recordings:CONCEPT_RECORDINGS", 90, 380, "ours", **_WORDS,
                                   noise_level=0.5, samples=1, seed=0, control_after_generate="fixed", **_METHOD, megapixels=1.0,
                                   blocks="auto"),
    "ConceptRegion": _kind("model clip conditioning", "model recordings:CONCEPT_RECORDINGS", 90, 380, "ours", **_WORDS, strength=1.0,
                           start_percent=0.25, end_percent=1.0, update=0, method="auto", threshold=0.5, grow=0, feather=0,
                           min_presence=0.3),
    "ConceptErase": _kind("model", "model", 0, 340, "ours"),
    "ConceptSaliency": _kind("recordings:CONCEPT_RECORDINGS samples:LATENT image",
                             "saliency:CONCEPT_SALIENCY heatmaps:IMAGE masks:MASK", 400, 380, "ours", layers="auto", start_percent=0.0,
                             end_percent=1.0, space="output", temperature=0.0),
    "ConceptSaliencyToMask": _kind("saliency:CONCEPT_SALIENCY image", "mask presence:FLOAT", 380, 380, "ours", concept="", method="auto",
                                   threshold=0.5, grow=0, feather=0, fill_holes=False, min_area=0, invert=False, refine=True),
    "ConceptSaliencyToSAM3": _kind("saliency:CONCEPT_SALIENCY", "positive_coords:STRING negative_coords:STRING bboxes:BOUNDING_BOX",
                                   0, 340, "ours", concept="", points=3, if_absent="empty prompts"),
}
