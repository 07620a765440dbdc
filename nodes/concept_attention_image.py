"""Concept Attention (Image): where the model sees concepts in a picture that already exists."""

import torch
from comfy_api.latest import io

from ..core.concepts import ConceptInputs
from ..core.pictures import model_size, resized
from ..core.recording import padded
from . import host, inputs
from .runs import ConceptRuns
from .types import CATEGORY, MAPS, MASKS, ConceptRecordings, found_by


class ConceptAttentionImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptAttentionImage",
            display_name="Concept Attention (Image)",
            category=CATEGORY,
            description="Shows an existing picture to a Flux model, with some noise, and records where it sees the concepts. "
                        "Nothing is generated; connect Concept Saliency.",
            inputs=[
                *inputs.model_inputs(),
                *inputs.concept_inputs(),
                io.Float.Input("noise_level", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="How much noise is mixed in: 0 shows the plain picture, 1 nothing but noise."),
                io.Int.Input("samples", default=1, min=1, max=64, tooltip="Passes with different noise, averaged. The paper uses 5."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Picks the noise."),
                *inputs.method_inputs(),
                io.Float.Input("megapixels", default=1.0, min=0.0, max=16.0, step=0.01,
                               tooltip="A larger picture is shown to the model at about this size, 1 being 1024 x 1024; 0 shows it as it "
                                       "is. "
                                       "Maps and masks have the picture's own size all the same."),
                io.Vae.Input("vae", optional=True, tooltip="The VAE that belongs to the model; needed for 'image'."),
                io.Image.Input("image", optional=True, tooltip="Any picture or batch of pictures, of any size."),
                io.Latent.Input("latent", optional=True, tooltip="In place of vae and image: pictures that are encoded already."),
                io.Conditioning.Input("conditioning", optional=True,
                                      tooltip="A prompt that describes the picture; empty if not connected."),
                inputs.blocks_input(),
            ],
            outputs=[ConceptRecordings.Output("recordings")],
            **found_by(*MAPS, *MASKS),
        )

    @classmethod
    def execute(cls, model, clip, concepts, contrast, noise_level, samples, seed, token, cross_attention, megapixels=1.0, vae=None,
                image=None, latent=None, conditioning=None, blocks="auto") -> io.NodeOutput:
        family, runs = host.family_of(model), ConceptRuns()
        encoded, seen_size = encode(vae, image, megapixels, family) if latent is None else from_latent(model, latent, vae, image, family)
        wanted = ConceptInputs.encoded(concepts, contrast, host.phrase_encoder(clip, family), token, cross_attention,
                                       blocks=blocks)
        if conditioning is None:
            conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        run = host.record_image(model, family, wanted, encoded, seen_size, conditioning, noise_level,
                                [(seed + i) % 2**64 for i in range(samples)])
        runs.keep(run if latent is not None else run.at_size(tuple(image.shape[1:3])))
        return io.NodeOutput(runs)


def encode(vae, image: torch.Tensor | None, megapixels: float, family) -> tuple[torch.Tensor, tuple[int, int]]:
    """Latents B x channels (x 1 frame) x h x w of pictures, and the (H, W) in pixels in which they are shown to the model.

    To a model for videos each picture is a video of one frame.
    """
    if vae is None or image is None:
        raise ValueError("There is no picture to look at. Connect 'vae' and 'image', or a 'latent' in their place.")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"'image' has the shape {tuple(image.shape)}; expected at least one picture of at least one pixel.")
    shown = resized(image[..., :3].movedim(-1, 1), model_size(*image.shape[1:3], megapixels, family.PIXELS))
    at_once = 1 if getattr(vae, "latent_dim", 2) == 3 else len(shown)  # a VAE for videos takes pictures for frames of one
    parts = [vae.encode(part) for part in padded(shown, family.PIXELS).movedim(1, -1).split(at_once)]
    return torch.cat(parts), tuple(shown.shape[-2:])


def from_latent(model, latent: dict, vae, image, family) -> tuple[torch.Tensor, tuple[int, int]]:
    """The same from a LATENT."""
    if vae is not None or image is not None:
        raise ValueError("Both a picture and a latent are connected. Connect either 'vae' and 'image', or 'latent' alone.")
    encoded, form = latent["samples"], model.get_model_object("latent_format")
    channels, frames = form.latent_channels, (1,) if form.latent_dimensions == 3 else ()
    if frames and encoded.ndim == 4:
        encoded = encoded.unsqueeze(2)
    if getattr(family, "COMPRESSION", 1) > 1:
        frames = encoded.shape[2:-2]  # a video's
    if encoded.ndim != form.latent_dimensions + 2 or 0 in encoded.shape or encoded.shape[1:-2] != (channels, *frames):
        raise ValueError(f"'latent' has the shape {tuple(encoded.shape)}; expected pictures x {channels} channels x height x width. "
                         "Encode the picture with the VAE that belongs to the model.")
    return encoded, tuple(side * family.PIXELS // family.PATCH for side in encoded.shape[-2:])
