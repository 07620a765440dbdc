"""Concept Attention: patch a model so that every sampling run records where it sees the concepts."""

from comfy_api.latest import io

from ..core.concepts import DEFAULT_CONTRAST, concept_vectors, parse_concepts, parse_contrast
from . import host
from .runs import ConceptRuns
from .types import CATEGORY, ConceptRecordings


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
                io.Model.Input("model", tooltip="A Flux.1 model. LoRAs, quantised weights and other patches are fine."),
                io.Clip.Input("clip", tooltip="The text encoders that belong to the model."),
                io.String.Input("concepts", multiline=True, default="", placeholder="dragon, sky, the red car",
                                tooltip="What to look for, separated by commas or lines. Synonyms in one concept: dog|puppy"),
                io.String.Input("contrast", multiline=True, default=DEFAULT_CONTRAST,
                                tooltip="Rivals that take the patches none of your concepts wants. They are not shown."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="When recording begins, as a share of sampling."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="When recording ends, as a share of sampling."),
                io.Combo.Input("token", options=["mean", "first"], default="mean",
                               tooltip="A phrase's vector: the mean over its tokens, or its first token (the paper's choice)."),
                io.Boolean.Input("cross_attention", default=False,
                                 tooltip="Also record the cross-attention space, the weaker baseline, for comparison."),
            ],
            # 0.3.64 wants ids that differ from every input's
            outputs=[io.Model.Output("patched_model", display_name="model"), ConceptRecordings.Output("recordings")],
        )

    @classmethod
    def execute(cls, model, clip, concepts, contrast, start_percent, end_percent, token, cross_attention) -> io.NodeOutput:
        if start_percent > end_percent:
            raise ValueError(f"start_percent is {start_percent:g} and end_percent is {end_percent:g}; the start must come first.")
        family = host.family_of(model)
        asked = parse_concepts(concepts)
        rivals = parse_contrast(contrast, asked)
        vectors = concept_vectors([*asked, *rivals], host.phrase_encoder(clip), token)
        names, rival_names = (tuple(c.name for c in group) for group in (asked, rivals))
        runs = ConceptRuns(names)
        patched = host.patch(model, family, vectors, names, rival_names, (start_percent, end_percent), cross_attention, runs)
        return io.NodeOutput(patched, runs)
