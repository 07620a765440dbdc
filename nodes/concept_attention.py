"""Concept Attention: patch a model so that every sampling run records where it sees the concepts."""

from comfy_api.latest import io

from ..core.concepts import ConceptInputs
from . import host, inputs
from .live_preview import LivePreview
from .runs import ConceptRuns
from .types import CATEGORY, MAPS, MASKS, ConceptRecordings, found_by, rarely_used


class ConceptAttentionApply(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptAttentionApply",
            display_name="Concept Attention",
            category=CATEGORY,
            description="Lets words ride along through a Flux model's attention, so that Concept Saliency can show where the model "
                        "sees each of them. The picture does not change.",
            inputs=[
                *inputs.model_inputs(),
                *inputs.concept_inputs(),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.01,
                               tooltip="When recording begins, as a share of sampling.", **rarely_used(io.Float.Input)),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="When recording ends, as a share of sampling.", **rarely_used(io.Float.Input)),
                *inputs.method_inputs(),
                inputs.blocks_input(),
                io.Boolean.Input("live_preview", default=False, optional=True,  # so that workflows saved before it was there stay valid
                                 tooltip="Show the heatmaps so far on this node while sampling, once a step.",
                                 **rarely_used(io.Boolean.Input)),
            ],
            # 0.3.64 wants ids that differ from every input's
            outputs=[io.Model.Output("patched_model", display_name="model"), ConceptRecordings.Output("recordings")],
            **found_by(*MAPS, *MASKS),
        )

    @classmethod
    def execute(cls, model, clip, concepts, contrast, start_percent, end_percent, token, cross_attention, blocks="auto",
                live_preview=False) -> io.NodeOutput:
        if start_percent > end_percent:
            raise ValueError(f"start_percent is {start_percent:g} and end_percent is {end_percent:g}; the start must come first.")
        family, runs = host.family_of(model), ConceptRuns()
        wanted = ConceptInputs.encoded(concepts, contrast, host.phrase_encoder(clip, family), token, cross_attention,
                                       blocks=blocks)
        preview = LivePreview.of_running_node() if live_preview else None
        return io.NodeOutput(host.patch(model, family, wanted, (start_percent, end_percent), runs, preview), runs)
