"""Saliency to Mask: one concept's map, thresholded and shaped."""

from comfy_api.latest import io, ui

from ..core import masks, render
from ..core.concepts import rows_of
from . import explorer, graph
from .types import CATEGORY, MASKS, ConceptSaliencyMaps, found_by, rarely_used
from .warnings import tell

LOW_PRESENCE = 0.3
EMPTY = 1e-4  # of the picture: a mask below it
UNSHAPED = masks.Shaping()


class ConceptSaliencyToMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyToMask",
            display_name="Saliency to Mask",
            category=CATEGORY,
            description="Turns one concept's saliency into a mask. Changing a setting here does not sample again.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", lazy=True, tooltip="From Concept Saliency."),
                io.String.Input("concept", default="", tooltip="Name of the concept, or its number; empty for the first. Union: dog + cat"),
                io.Combo.Input("method", options=list(masks.METHODS), default=masks.METHODS[0],
                               tooltip="auto: above Otsu's threshold, as far as the concept beats every other one; empty if it is not "
                                       "there. "
                                       "mean: above the map's own mean (the paper's). otsu: above Otsu's threshold. percentile: the "
                                       "strongest 1 - threshold of the picture. absolute: above the threshold. argmax: where the concept "
                                       "beats every other one. soft: no threshold."),
                io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="For the methods percentile and absolute only; the others find their own."),
                io.Int.Input("grow", default=0, min=-1024, max=1024, tooltip="Move the edge out by so many pixels, or in if negative."),
                io.Int.Input("feather", default=0, min=0, max=1024,
                             tooltip="Fade the edge over so many pixels to either side. The picture's frame does not fade."),
                io.Boolean.Input("fill_holes", default=False, tooltip="Fill holes that the mask encloses.",
                                 **rarely_used(io.Boolean.Input)),
                io.Int.Input("min_area", default=0, min=0, max=1 << 24, tooltip="Remove islands of fewer pixels.",
                             **rarely_used(io.Int.Input)),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the concept."),
                io.Image.Input("image", optional=True, lazy=True, tooltip="The picture that the saliency was made from: the preview shows "
                                                                          "it, and with 'refine' the mask's edges follow its own."),
                io.Boolean.Input("refine", default=True, optional=True, tooltip="With an image: the mask's edges follow the picture's."),
            ],
            outputs=[io.Mask.Output("mask"),
                     io.Float.Output("presence",
                                     tooltip="How surely the concept is in the picture, 0 to 1; the surest of a batch or union.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            **found_by(*MASKS),
        )

    @classmethod
    def check_lazy_status(cls, concept, **inputs) -> list[str]:
        graph.check_concept(cls, concept)
        return graph.still_needed(inputs)

    @classmethod
    def execute(cls, saliency, concept, method, threshold, grow, feather, fill_holes, min_area, invert, image=None,
                refine=True) -> io.NodeOutput:
        shaping = masks.Shaping(grow, feather, fill_holes, min_area, invert)
        if image is not None:
            saliency = saliency.at_size(tuple(image.shape[1:3]))
        mask = masks.mask(saliency, concept, method, threshold, shaping, image if refine else None)
        rows = rows_of(concept, saliency.concepts)
        name = " + ".join(saliency.concepts[row] for row in rows)
        presence, shares = saliency.presence[:, rows].amax(dim=1), mask.mean(dim=(1, 2))
        picked = render.previewed(saliency)
        captions = [f"{name}  {presence[number]:.2f}{render.frame_name(saliency, number)}" for number in picked]
        preview = render.mask_tiles(mask[picked], image if image is None or len(image) == 1 else image[picked], captions)
        tell(cls, *findings(name, presence.tolist(), (1 - shares if invert else shares).tolist(), method, threshold, shaping,
                            saliency.frames))
        shown = ui.PreviewImage(preview, cls=cls).as_dict() | explorer.data(saliency, image, exact=True)
        return io.NodeOutput(mask, float(presence.max()), ui=shown)


def findings(name: str, presence: list[float], shares: list[float], method: str, threshold: float,
             shaping: masks.Shaping = UNSHAPED, frames: int = 1) -> tuple[list[str], list[str]]:
    """Warnings and remarks: presence, and the share of the picture that is the concept's, for each picture, or for each clip of
    `frames` pictures: the surest frame's presence, and the share of all."""
    warnings, remarks, advice = [], [], []
    kind = "picture" if frames == 1 else "clip"
    clips = [slice(first, first + frames) for first in range(0, len(shares), frames)]
    for number, clip in enumerate(clips, 1):
        there, seen = max(presence[clip]), [share >= EMPTY for share in shares[clip]]
        share = sum(shares[clip]) / frames
        of = f" in {kind} {number}" if len(clips) > 1 else ""
        if not any(seen):
            warnings.append(f"The mask of '{name}' is empty{of} (presence {there:.2f}).")
            advice = [why_empty(method, threshold, shaping)]  # once for all pictures
            continue
        if there < LOW_PRESENCE:
            warnings.append(f"'{name}' may not be{of or f' in the {kind}'}: presence is {there:.2f}. Look at its heatmap "
                            "before you use the mask.")
        when = f", in {sum(seen)} of {frames} frames" if frames > 1 else ""
        remarks.append(f"'{name}'{of}: presence {there:.2f}, {share:.0%} of the {kind}{when}")
    if method not in masks.THRESHOLDED and threshold != 0.5:
        remarks.append(f"'threshold' is for the methods {' and '.join(masks.THRESHOLDED)} only; {method} does not use it.")
    return warnings + advice, remarks


def why_empty(method: str, threshold: float, shaping: masks.Shaping) -> str:
    """What leaves a mask empty, and what to try."""
    if shaping.min_area > 0 or shaping.grow < 0:
        return "'min_area', and 'grow' below 0, take away from a mask: set them to 0 to see what was there."
    if method in masks.THRESHOLDED:
        return f"Nothing lies above the threshold of {threshold:g}: lower it."
    words = "Try a plainer word, or contrast words that name what else is in the picture"
    if method in ("auto", "argmax"):
        return f"Other concepts or contrast words win everywhere. {words}, or the method otsu."
    return f"Its heatmap is nearly the same everywhere. {words}."
