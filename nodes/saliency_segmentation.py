"""Saliency to Segmentation: every pixel to the concept that wins it."""

from comfy_api.latest import io, ui

from ..core import regions, render
from .inputs import instances_input
from .types import CATEGORY, MASKS, ConceptSaliencyMaps, found_by


class ConceptSaliencySegmentation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencySegmentation",
            display_name="Saliency to Segmentation",
            category=CATEGORY,
            description="A label picture with a legend, and one mask a concept; no pixel is in two masks.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.Image.Input("image", optional=True,
                               tooltip="The picture that the saliency was made from: borders then follow its edges."),
                instances_input(),
            ],
            outputs=[io.Image.Output("labels", display_name="label image"),
                     io.Mask.Output("masks", tooltip="One a concept, or one a single thing, picture by picture; disjoint.")],
            is_output_node=True,
            **found_by(*MASKS),
        )

    @classmethod
    def execute(cls, saliency, image=None, instances=False) -> io.NodeOutput:
        if image is not None:
            saliency = saliency.at_size(tuple(image.shape[1:3]))
        label = regions.labels(saliency, image)
        label, names = regions.instance_labels(label, saliency.concepts) if instances else (label, saliency.concepts)
        picture = render.segmentation(label, names)
        masks = regions.disjoint_masks(label, len(names)).flatten(0, 1)
        return io.NodeOutput(picture, masks, ui=ui.PreviewImage(picture[render.previewed(saliency)], cls=cls))
