"""Saliency to Mask: one concept's map, thresholded and shaped."""

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
                               tooltip="mean: above the map's own mean (the paper's). otsu: above Otsu's threshold. percentile: the "
                                       "strongest 1 - threshold of the picture. absolute: above the threshold. argmax: where the concept "
                                       "beats every other one; empty if it is not there. soft: no threshold."),
                io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="For the methods percentile and absolute only."),
                io.Int.Input("grow", default=0, min=-1024, max=1024, tooltip="Move the edge out by so many pixels, or in if negative."),
                io.Int.Input("feather", default=0, min=0, max=1024,
                             tooltip="Fade the edge over so many pixels to either side. The picture's frame does not fade."),
                io.Boolean.Input("fill_holes", default=False, tooltip="Fill holes that the mask encloses."),
                io.Int.Input("min_area", default=0, min=0, max=1 << 24, tooltip="Remove islands of fewer pixels."),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the concept."),
                io.Image.Input("image", optional=True, tooltip="The picture that the saliency was made from, for 'refine'."),
                io.Boolean.Input("refine", default=True, optional=True, tooltip="With an image: the mask's edges follow the picture's."),
            ],
            outputs=[io.Mask.Output("mask"),
                     io.Float.Output("presence",
                                     tooltip="How surely the concept is in the picture, 0 to 1; the surest of a batch or union.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, saliency, concept, method, threshold, grow, feather, fill_holes, min_area, invert, image=None,
                refine=True) -> io.NodeOutput:
        shaping = masks.Shaping(grow, feather, fill_holes, min_area, invert)
        if image is not None:
            saliency = saliency.at_size(tuple(image.shape[1:3]))
        mask = masks.mask(saliency, concept, method, threshold, shaping, image if refine else None)
        presence = saliency.presence[:, masks.rows_of(saliency, concept)].max().item()
        return io.NodeOutput(mask, presence, ui=ui.PreviewMask(mask, cls=cls))
