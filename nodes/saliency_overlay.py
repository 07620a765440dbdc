"""Saliency Overlay: heat over the picture, with its name."""

import torch
from comfy_api.latest import io, ui

from ..core import masks, render
from .types import CATEGORY, MAPS, ConceptSaliencyMaps, found_by


class ConceptSaliencyOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyOverlay",
            display_name="Saliency Overlay",
            category=CATEGORY,
            description="Lays each concept's heat over the picture: one picture a concept, picture by picture.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.Image.Input("image", tooltip="The picture that the saliency was made from."),
                io.Combo.Input("colormap", options=list(render.COLORMAPS), default=render.COLORMAPS[0], tooltip="Colours of the heat."),
                io.Float.Input("opacity", default=0.8, min=0.0, max=1.0, step=0.01,
                               tooltip="How much the hottest places hide the picture."),
                io.Boolean.Input("legend", default=True, tooltip="Write the concept's name and presence above each picture."),
            ],
            outputs=[io.Image.Output("overlay", display_name="image")],
            is_output_node=True,
            **found_by(*MAPS),
        )

    @classmethod
    def execute(cls, saliency, image, colormap, opacity, legend) -> io.NodeOutput:
        if len(image) not in (1, len(saliency.maps)):
            raise ValueError(f"'image' holds {len(image)} pictures, but the saliency is of {saliency.counted}. "
                             "Connect the pictures that the saliency was made from.")
        sized = saliency.at_size(tuple(image.shape[1:3]))
        out = []
        for b, maps in enumerate(masks.soft_masks(sized)):
            picture = image[b % len(image)][None]
            for c, heat in enumerate(maps):
                over = render.overlay(picture, heat[None], opacity, colormap)[0]
                out.append(render.label(over, render.caption(saliency, b, c)) if legend else over)
        result, count = torch.stack(out), len(saliency.concepts)
        shown = [b * count + c for b in render.previewed(saliency) for c in range(count)]
        return io.NodeOutput(result, ui=ui.PreviewImage(result[shown], cls=cls))
