"""What both capture nodes ask the user for."""

from comfy_api.latest import io

from ..core.concepts import DEFAULT_CONTRAST


def model_inputs() -> list[io.Input]:
    return [io.Model.Input("model", tooltip="A Flux.1 model. LoRAs, quantised weights and other patches are fine."),
            io.Clip.Input("clip", tooltip="The text encoders that belong to the model.")]


def concept_inputs() -> list[io.Input]:
    return [io.String.Input("concepts", multiline=True, default="", placeholder="dragon, sky, the red car",
                            tooltip="What to look for, separated by commas or lines. Synonyms in one concept: dog|puppy"),
            io.String.Input("contrast", multiline=True, default=DEFAULT_CONTRAST,
                            tooltip="Rivals that take the patches none of your concepts wants. They are not shown.")]


def method_inputs() -> list[io.Input]:
    return [io.Combo.Input("token", options=["mean", "first"], default="mean",
                           tooltip="A phrase's vector: the mean over its tokens, or its first token (the paper's choice)."),
            io.Boolean.Input("cross_attention", default=False,
                             tooltip="Also record the cross-attention space, the weaker baseline, for comparison.")]
