"""The inputs that several nodes have."""

from comfy_api.latest import io

from ..core.concepts import DEFAULT_CONTRAST
from ..core.families import BLOCKS, FAMILIES
from .types import rarely_used

_MODELS = ", ".join(family.TITLE for family in FAMILIES.values())


def model_inputs() -> list[io.Input]:
    return [io.Model.Input("model", tooltip=f"One of: {_MODELS}. LoRAs, quantised weights and other patches are fine."),
            io.Clip.Input("clip", tooltip="The text encoders that belong to the model.")]


def concept_inputs() -> list[io.Input]:
    return [io.String.Input("concepts", multiline=True, default="", placeholder="concepts, for example: dragon, sky, red car",
                            tooltip="What to look for, separated by commas or lines. Synonyms in one concept: dog|puppy"),
            io.String.Input("contrast", default=DEFAULT_CONTRAST,  # one line: a filled box of several would hide its own name
                            tooltip="Rivals that take the patches none of your concepts wants. They are not shown. Better than the "
                                    "default: what else is in your picture, above all its ground.")]


def method_inputs() -> list[io.Input]:
    return [io.Combo.Input("token", options=["mean", "first"], default="mean",
                           tooltip="A phrase's vector: the mean over its tokens, or its first token (the paper's choice).",
                           **rarely_used(io.Combo.Input)),
            io.Boolean.Input("cross_attention", default=False,
                             tooltip="Also record the cross-attention space, the weaker baseline, for comparison.",
                             **rarely_used(io.Boolean.Input))]


def blocks_input() -> io.Input:
    """Optional, so that workflows saved before it was there stay valid."""
    return io.Combo.Input("blocks", options=["auto", *BLOCKS], default="auto", optional=True,
                          tooltip="How far the concepts ride along in models that go on in single-stream blocks, as Flux does: through "
                                  "the double-stream blocks alone (the paper's choice), on through the first single-stream block, or "
                                  "through all of them. 'auto' is the model's own choice. Single-stream blocks are numbered after the "
                                  "double-stream ones.",
                          **rarely_used(io.Combo.Input))


def instances_input() -> io.Input:
    """Optional for the same reason."""
    return io.Boolean.Input("instances", default=False, optional=True,
                            tooltip="Single things: two cats that touch are cut where they meet, and crumbs beside a cat are left out.")
