"""Saliency to Mask: one concept's map, thresholded."""

from comfy_api.latest import io, ui

from ..core import masks
from .types import CATEGORY, ConceptSaliencyMaps


class ConceptSaliencyToMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyToMask",
            display_name="Saliency to Mask",
            category=CATEGORY,
            description="Turns one concept's saliency into a mask. Changing a setting here does not sample again.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.String.Input("concept", default="", tooltip="Name of the concept; empty for the first. Union: dog + cat"),
                io.Combo.Input("method", options=list(masks.METHODS), default="mean",
                               tooltip="mean: above the map's own mean (the paper's). absolute: above the threshold. "
                                       "argmax: where the concept beats every other one."),
                io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="For the method 'absolute' only."),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the concept."),
            ],
            outputs=[io.Mask.Output("mask"),
                     io.Float.Output("presence", tooltip="How surely the concept is in the picture, 0 to 1; the surest of a batch or union.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, saliency, concept, method, threshold, invert) -> io.NodeOutput:
        mask = masks.mask(saliency, concept, method, threshold, invert)
        presence = saliency.presence[:, masks.rows_of(saliency, concept)].max().item()
        return io.NodeOutput(mask, presence, ui=ui.PreviewMask(mask, cls=cls))
