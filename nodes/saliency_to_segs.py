"""Saliency to SEGS: segments in Impact Pack's form, without importing it."""

from collections import namedtuple
from collections.abc import Callable

import torch
from comfy_api.latest import io

from ..core import regions
from .inputs import instances_input
from .types import CATEGORY, MASKS, ConceptSaliencyMaps, found_by

# Impact Pack reads these fields by name and by place (modules/impact/core.py, SEG).
SEG = namedtuple("SEG", ["cropped_image", "cropped_mask", "confidence", "crop_region", "bbox", "label", "control_net_wrapper"],
                 defaults=[None])


class ConceptSaliencyToSEGS(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyToSEGS",
            display_name="Saliency to SEGS",
            category=CATEGORY,
            description="Every island of every concept as a segment for Impact Pack's Detailer and its other SEGS nodes.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.Image.Input("image", tooltip="The picture or pictures that the saliency was made from."),
                io.Float.Input("crop_factor", default=3.0, min=1.0, max=10.0, step=0.1,
                               tooltip="How much larger than the island the crop is."),
                instances_input(),
            ],
            # One SEGS is of one picture: the nodes after this one run once for each
            outputs=[io.SEGS.Output("segs", display_name="SEGS", is_output_list=True)],
            **found_by(*MASKS),
        )

    @classmethod
    def execute(cls, saliency, image, crop_factor, instances=False) -> io.NodeOutput:
        if len(image) != len(saliency.maps):
            raise ValueError(f"'image' holds {len(image)} pictures, but the saliency is of {saliency.counted}. "
                             "Connect the pictures that the saliency was made from.")
        height, width = image.shape[1:3]
        labels = regions.labels(saliency.at_size((height, width)), image)
        pieces = regions.instances if instances else regions.islands
        return io.NodeOutput([((height, width), segments(saliency.concepts, saliency.presence[b], label, image[b:b + 1], crop_factor,
                                                         pieces)) for b, label in enumerate(labels)])


def segments(concepts: tuple[str, ...], presence: torch.Tensor, label: torch.Tensor, image: torch.Tensor, crop_factor: float,
             pieces: Callable = regions.islands) -> list[SEG]:
    """The islands, or the single things, of one picture's labels H x W; image: 1 x H x W x 3; presence: one a concept.

    pieces: regions.islands or regions.instances.
    """
    height, width = label.shape
    found = []
    for row, name in enumerate(concepts):
        for box, island in pieces((label == row).float()):
            x1, y1, x2, y2 = region = crop_region(box, crop_factor, width, height)
            left, top, right, bottom = box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]
            own = torch.zeros(y2 - y1, x2 - x1)  # this island alone, were another in the same crop
            own[top - y1:bottom - y1, left - x1:right - x1] = island.float()
            found.append(SEG(image[:, y1:y2, x1:x2], own.numpy(), float(presence[row]), list(region), [left, top, right, bottom], name))
    return found


def crop_region(box: dict, factor: float, width: int, height: int) -> tuple[int, int, int, int]:
    """A box enlarged about its middle by `factor` and moved into the picture: x1, y1, x2, y2 pixels."""

    def span(start: int, length: int, limit: int) -> tuple[int, int]:
        wanted = min(limit, round(length * factor))
        first = min(max(0, round(start + length / 2 - wanted / 2)), limit - wanted)
        return first, first + wanted

    (x1, x2), (y1, y2) = span(box["x"], box["width"], width), span(box["y"], box["height"], height)
    return x1, y1, x2, y2
