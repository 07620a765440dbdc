"""Flux.1 as diffusers has it."""

from __future__ import annotations

from itertools import pairwise

import torch
from concept_saliency.core.concepts import ConceptInputs
from concept_saliency.core.families.flux1 import diffusers as naming
from concept_saliency.headless.capture import capture
from concept_saliency.headless.image import one_pass
from diffusers import FluxTransformer2DModel
from flux import AXES, CONTRAST, HEADS, TEXT, WIDTH, Bare, names, vectors


class Flux(Bare):
    """Looked into as the users of diffusers do it: with capture(...)."""

    naming = naming

    def built(self, depth: int) -> FluxTransformer2DModel:
        return FluxTransformer2DModel(num_layers=depth, num_single_layers=2 * depth, attention_head_dim=WIDTH // HEADS,
                                      num_attention_heads=HEADS, joint_attention_dim=4096, pooled_projection_dim=768,
                                      guidance_embeds=True, axes_dims_rope=AXES)

    def call(self, tokens: int) -> dict[str, torch.Tensor]:
        """What the transformer is given besides the time."""
        given, rows = self.inputs(tokens), torch.arange(self.side(tokens)).float()
        return dict(hidden_states=given["img"], encoder_hidden_states=given["txt"], pooled_projections=given["y"],
                    guidance=given["guidance"], txt_ids=torch.zeros(TEXT, 3, device=self.device),
                    img_ids=torch.cartesian_prod(torch.zeros(1), rows, rows).to(self.device))

    @torch.no_grad()
    def sample(self, tokens: int, steps: int = 1) -> torch.Tensor:
        if not self.concepts:
            return self.run(tokens, steps)
        known = dict(zip((*names(self.concepts), *CONTRAST), vectors(self.concepts + len(CONTRAST))[0]))
        with capture(self.transformer, names(self.concepts), contrast=CONTRAST, encode=lambda phrase: known[phrase][None],
                     start=self.window[0], end=self.window[1], blocks=self.blocks) as recordings:
            img = self.run(tokens, steps)
        recordings.latest  # noqa: B018 (waits for what was recorded)
        return img

    def run(self, tokens: int, steps: int) -> torch.Tensor:
        call = self.call(tokens)
        img = call.pop("hidden_states")
        for now, then in pairwise(torch.linspace(1, 0, steps + 1).tolist()):
            img = img + (then - now) * self.transformer(hidden_states=img, timestep=self.each(now), return_dict=False, **call)[0]
        self.finish()
        return img

    @torch.no_grad()
    def look_at_picture(self, tokens: int, blocks: str = "auto") -> None:
        """What saliency_of_image does between the encoders and the maps."""
        inputs = ConceptInputs(names(11), CONTRAST, vectors(11 + len(CONTRAST)), blocks=blocks)
        call = {**self.call(tokens), "timestep": self.each(0.5)}
        one_pass(self.transformer, inputs, (self.side(tokens) * naming.PIXELS,) * 2, call, iter(()))
        self.finish()
