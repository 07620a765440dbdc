"""Erase under Mask: what the latent's mask covers goes, and its surroundings close over it."""

from comfy_api.latest import io

from . import host
from .types import CATEGORY, found_by


class ConceptErase(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptErase",
            display_name="Erase under Mask",
            category=CATEGORY,
            description="Removes what the latent's mask covers: there the model sees the surroundings alone, so that nothing that "
                        "stood there is drawn again, and no prompt has to say what is behind it.",
            inputs=[io.Model.Input("model", tooltip="Any model that Concept Attention supports. The mask is the latent's own: put Set "
                                                    "Latent Noise Mask between VAE Encode and the sampler. Leave the prompt empty, or "
                                                    "describe the surroundings.")],
            outputs=[io.Model.Output("patched_model", display_name="model")],
            **found_by("remove object", "object removal", "Attentive Eraser", "inpaint", "clean up"),
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        return io.NodeOutput(host.erase(model, host.family_of(model)))
