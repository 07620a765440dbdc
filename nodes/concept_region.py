"""Concept Region: where a word takes shape in this very run, another conditioning takes over."""

from comfy_api.latest import io

from ..core import masks
from ..core.concepts import ConceptInputs
from ..core.live_region import RegionRule
from . import host, inputs
from .runs import ConceptRuns
from .types import CATEGORY, ConceptRecordings, found_by, rarely_used


class ConceptRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptRegion",
            display_name="Concept Region",
            category=CATEGORY,
            description="Where a word takes shape in this very run, another prompt, LoRA or ControlNet takes over: no second run, no "
                        "mask drawn by hand. Until then the run is what it would have been.",
            inputs=[
                *inputs.model_inputs(),
                io.Conditioning.Input("conditioning", tooltip="The prompt for the inside. Hooks (a LoRA), ControlNets and masks on it act "
                                                              "in the region only."),
                *inputs.concept_inputs(),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="How much of the inside the region's prompt has; the rest stays the prompt's."),
                io.Float.Input("start_percent", default=0.25, min=0.0, max=1.0, step=0.01,
                               tooltip="When the region is found in the steps so far and takes over, as a share of sampling. Earlier: the "
                                       "new thing may have a form of its own. Later: it keeps the form of the old one."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="When the region ends.",
                               **rarely_used(io.Float.Input)),
                io.Int.Input("update", default=0, min=0, max=1000,
                             tooltip="Find the region again after so many steps, in all steps so far; 0: once.",
                             **rarely_used(io.Int.Input)),
                io.Combo.Input("method", options=list(masks.METHODS), default=masks.METHODS[0],
                               tooltip="How the mask is made, as in Saliency to Mask; there is no picture yet whose edges it could "
                                       "follow."),
                io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="For the methods percentile and absolute only; the others find their own.",
                               **rarely_used(io.Float.Input)),
                io.Int.Input("grow", default=0, min=-1024, max=1024,
                             tooltip="Move the region's edge out by so many pixels, or in if negative."),
                io.Int.Input("feather", default=0, min=0, max=1024, tooltip="Fade the edge over so many pixels to either side."),
                io.Float.Input("min_presence", default=0.3, min=0.0, max=1.0, step=0.01,
                               tooltip="Change nothing in a picture in which the words are less surely there."),
            ],
            outputs=[io.Model.Output("patched_model", display_name="model"), ConceptRecordings.Output("recordings")],
            **found_by("regional prompt", "regional LoRA", "attention couple", "latent couple", "conditioning mask"),
        )

    @classmethod
    def execute(cls, model, clip, conditioning, concepts, contrast, strength, start_percent, end_percent, update, method, threshold, grow,
                feather, min_presence) -> io.NodeOutput:
        if start_percent > end_percent:
            raise ValueError(f"start_percent is {start_percent:g} and end_percent is {end_percent:g}; the start must come first.")
        rule = RegionRule(strength, method, threshold, masks.Shaping(grow, feather), min_presence)
        family, runs = host.family_of(model), ConceptRuns()
        wanted = ConceptInputs.encoded(concepts, contrast, host.phrase_encoder(clip, family))
        return io.NodeOutput(host.add_region(model, family, wanted, conditioning, rule, (start_percent, end_percent), update, runs), runs)
