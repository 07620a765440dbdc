"""Saliency to SAM3 Prompts: points and boxes for ComfyUI's SAM3_Detect."""

import json

from comfy_api.latest import io

from ..core import regions
from . import graph
from .types import CATEGORY, MASKS, ConceptSaliencyMaps, found_by
from .warnings import tell


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
                ConceptSaliencyMaps.Input("saliency", lazy=True, tooltip="From Concept Saliency."),
                io.String.Input("concept", default="", tooltip="Name of the concept, or its number; empty for the first."),
                io.Int.Input("points", default=3, min=1, max=16, tooltip="At most this many points of each kind."),
                io.Combo.Input("if_absent", options=["empty prompts", "error"], default="empty prompts",
                               tooltip="When the concept wins no place in the picture: hand on no points and no boxes, so that SAM3 Detect "
                                       "finds nothing and a batch goes on, or stop."),
            ],
            outputs=[io.String.Output("positive_coords"), io.String.Output("negative_coords"), io.BoundingBox.Output("bboxes")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            **found_by(*MASKS),
        )

    @classmethod
    def check_lazy_status(cls, concept, saliency=None, **widgets) -> list[str]:
        graph.check_concept(cls, concept)
        return graph.still_needed({"saliency": saliency})

    @classmethod
    def execute(cls, saliency, concept, points, if_absent="empty prompts") -> io.NodeOutput:
        row = saliency.index(concept)
        prompts = [regions.point_prompts(saliency, row, b, points) for b in range(len(saliency.maps))]
        positive, negative, _ = prompts[0]
        if not positive:
            absent = f"'{saliency.concepts[row]}' wins no place in the picture (presence {saliency.presence[0, row]:.2f})"
            if if_absent == "error":
                raise ValueError(f"{absent}, so there is no point to give to SAM3. Choose another concept.")
            tell(cls, [f"{absent}: SAM3 Detect gets no points and finds nothing."])
            negative = []
        boxes = [[box for box, _ in regions.islands(wins)] for _, _, wins in prompts]
        return io.NodeOutput(json.dumps(positive), json.dumps(negative), boxes)
