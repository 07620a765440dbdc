"""Flux.1 in plain PyTorch, with the demo's own code, for a machine that has nothing else."""

from __future__ import annotations

from itertools import pairwise

import torch
from concept_saliency.core.families.flux1 import comfyui as family
from concept_saliency.core.recording import Recorder
from concept_saliency.core.stream import ConceptStream
from concept_saliency.demo.flux import Flux as PlainFlux
from concept_saliency.demo.flux import FluxConfig
from flux import AXES, CONTRAST, HEADS, WIDTH, Bare, names, vectors


class Flux(Bare):
    """What is looked for stands in the call itself: see `watch` in demo/flux.py."""

    naming = family

    def built(self, depth: int) -> PlainFlux:
        return PlainFlux(FluxConfig(vec_in_dim=768, context_in_dim=4096, hidden_size=WIDTH, num_heads=HEADS, depth=depth,
                                    depth_single_blocks=2 * depth, axes_dim=AXES, guidance_embed=True))

    @torch.no_grad()
    def sample(self, tokens: int, steps: int = 1) -> torch.Tensor:
        given, grid, levels = self.inputs(tokens), (self.side(tokens),) * 2, torch.linspace(1, 0, steps + 1).tolist()
        img = given["img"]
        singles = family.DEFAULTS.singles_of(self.blocks)
        depth = len(family.blocks(self.transformer, singles))
        recorder = Recorder(names(self.concepts), CONTRAST, family.NAME, family.DEFAULTS, levels, depth, (grid[0] * family.PIXELS,) * 2,
                            singles=depth - len(family.blocks(self.transformer)))
        text = vectors(self.concepts + len(CONTRAST)).to(img).expand(self.batch, -1, -1)
        for now, then in pairwise(levels):
            t, stream = self.each(now), None
            if self.concepts and self.window[0] <= 1 - now <= self.window[1]:
                stream = ConceptStream(family, self.transformer, text, t, given["guidance"], singles=singles)
            img = img + (then - now) * self.transformer(img, given["txt"], t, grid, given["y"], given["guidance"], stream and stream.watch,
                                                        singles)
            if stream:
                recorder.add(now, {space: torch.stack(scores) for space, scores in stream.scores.items()})
        if self.concepts:
            recorder.finish()
        self.finish()
        return img
