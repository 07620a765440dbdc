"""Concept Saliency: from a recorded sampling run to heatmaps and soft masks."""

import torch
from comfy_api.latest import io, ui

from ..core import render
from ..core.masks import soft_masks
from ..core.recording import SPACES
from ..core.saliency import saliency
from . import explorer
from .types import CATEGORY, MAPS, ConceptRecordings, ConceptSaliencyMaps, found_by, rarely_used
from .warnings import tell


class ConceptSaliency(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliency",
            display_name="Concept Saliency",
            category=CATEGORY,
            description="Shows where the model sees each concept. Changing a setting here does not sample again.",
            inputs=[
                ConceptRecordings.Input("recordings", tooltip="From Concept Attention."),
                io.Latent.Input("samples", optional=True, tooltip="The sampler's latent: picks the run that made it, and waits for it."),
                io.Image.Input("image", optional=True, tooltip="The decoded picture: maps get its size, and the preview shows it."),
                io.String.Input("layers", default="auto", tooltip="Blocks to average: auto, all, 15-18, 3,7 or -4: (the last four)."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.01,
                               tooltip="First recorded step to use, as a share of sampling.",
                               **rarely_used(io.Float.Input)),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="Last recorded step to use, as a share of sampling.",
                               **rarely_used(io.Float.Input)),
                io.Combo.Input("space", options=list(SPACES), default="output",
                               tooltip="output: the paper's method. cross-attention: its baseline; must have been recorded.",
                               **rarely_used(io.Combo.Input)),
                io.Float.Input("temperature", default=0.0, min=0.0, max=100000.0, step=0.1,
                               tooltip="Softness of the rivalry between concepts; 0 is the model's own."),
            ],
            outputs=[ConceptSaliencyMaps.Output("saliency"), io.Image.Output("heatmaps", tooltip="One a concept, picture by picture."),
                     io.Mask.Output("masks", tooltip="Soft, one a concept, picture by picture.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **found_by(*MAPS),
        )

    @classmethod
    def execute(cls, recordings, layers, start_percent, end_percent, space, temperature, samples=None, image=None) -> io.NodeOutput:
        latent = None if samples is None else samples["samples"]
        recording, warnings = recordings.recording(latent, space)
        result = saliency(recording, layers, start_percent, end_percent, temperature)
        if image is not None:
            if image.shape[0] not in (1, result.maps.shape[0]):
                raise ValueError(f"'image' holds {image.shape[0]} pictures, but {result.counted} were recorded. "
                                 "Connect the pictures decoded from the same latent.")
            result = result.at_size(tuple(image.shape[1:3]))
        masks = soft_masks(result)
        heatmaps = torch.cat([render.heatmaps(of_picture) for of_picture in masks])  # one by one: a video has many
        remarks = [] if recording.space == space else [
            f"In this model text has no stream of its own, so there is no space '{space}': these maps are of the space "
            f"'{recording.space}', the only one it has."]
        tell(cls, warnings, remarks)
        preview = ui.PreviewImage(render.tiles(result, masks, image), cls=cls).as_dict()
        preview |= explorer.data(result, image, recording=recording, layers=layers, temperature=temperature)
        return io.NodeOutput(result, heatmaps, masks.flatten(0, 1), ui=preview)
