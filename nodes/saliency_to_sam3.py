"""Saliency to SAM3 Prompts: points and boxes for ComfyUI's SAM3_Detect."""

import json

from comfy_api.latest import io

from ..core import regions
from .types import CATEGORY, ConceptSaliencyMaps


class ConceptSaliencyToSAM3(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyToSAM3",
            display_name="Saliency to SAM3 Prompts",
            category=CATEGORY,
            description="Peaks of a concept as positive points, peaks of its rivals as negative points, and its islands as boxes: what "
                        "SAM3 Detect takes. Points are those of the first picture, boxes those of every picture.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.String.Input("concept", default="", tooltip="Name of the concept; empty for the first."),
                io.Int.Input("points", default=3, min=1, max=16, tooltip="At most this many points of each kind."),
            ],
            outputs=[io.String.Output("positive_coords"), io.String.Output("negative_coords"), io.BoundingBox.Output("bboxes")],
        )

    @classmethod
    def execute(cls, saliency, concept, points) -> io.NodeOutput:
        row = saliency.index(concept)
        prompts = [regions.point_prompts(saliency, row, b, points) for b in range(len(saliency.maps))]
        if not prompts[0][0]:
            raise ValueError(f"'{saliency.concepts[row]}' wins no place in the picture (presence {saliency.presence[0, row]:.2f}), "
                             "so there is no point to give to SAM3. Choose another concept.")
        positive, negative, _ = prompts[0]
        boxes = [[box for box, _ in regions.islands(wins)] for _, _, wins in prompts]
        return io.NodeOutput(json.dumps(positive), json.dumps(negative), boxes)
