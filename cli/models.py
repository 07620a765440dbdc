"""What the shell needs of a model, and which model a name means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..core.recording import Recording, joined, padded
from ..demo.codec import encode
from ..demo.pipeline import TinyFlux
from ..demo.world import CONTRAST

Progress = Callable[[Iterable], Iterable]
PATIENCE = timedelta(days=30)  # a process that is done waits for the slowest


class Model(Protocol):
    """A model that draws pictures and looks at them.

    size: (H, W) pixels it draws unless told otherwise, and at which it is evaluated. depth: its
    double-stream blocks. noise_level: for existing pictures unless told otherwise. contrast: its rivals
    of the user's concepts unless others are typed. Unknown words and impossible sizes raise ValueError.
    """

    size: tuple[int, int]
    depth: int
    noise_level: float
    contrast: str

    def layers(self, blocks: str = "auto") -> int:
        """How many layers are recorded; blocks: see core.families.Defaults.singles_of."""

    def generate(self, prompt: str, concepts: str, contrast: str, seed: int, size: tuple[int, int], steps: int | None,
                 progress: Progress, blocks: str = "auto") -> tuple[Tensor, Recording]:
        """A picture 1 x 3 x H x W in 0..1 and its recording. `progress` wraps the steps; no `steps`: the model's own number.
        blocks: see layers."""

    def record(self, images: Tensor, concepts: str, contrast: str, captions: Sequence[str] | None = None,
               noise_level: float | None = None, seeds: range = range(1), token: str = "mean",
               cross_attention: bool = False, self_attention: bool = True, linear: bool = False, pooled_prompt: bool = True,
               guidance: float | None = None, progress: Progress = iter, blocks: str = "auto") -> dict[str, Recording]:
        """Recordings, by space, of existing pictures B x 3 x H x W in 0..1, of any size: one pass for each of `seeds`.

        captions: one a picture, empty if not given. Recording.image_size is the pictures' own size.
        self_attention: whether concepts see one another. linear: see record_image. pooled_prompt: whether the captions' pooled
        vectors go in, where the model takes any. guidance: of a model that was distilled, 3.5 if not given.
        progress: wraps the steps of the work, passes or blocks. blocks: see layers.
        """


def load(name: str, weights: Path | None = None) -> Model:
    """The model called `name`. weights: a folder of other weights for 'tiny'. Raises ValueError for a name that means none."""
    if name == "tiny":
        return Tiny(TinyFlux(weights) if weights else TinyFlux())
    from .pipeline import Pipeline  # diffusers takes seconds to import

    return Pipeline(name, process_of(name).device)


def process_of(name: str):
    """This process among those that `accelerate launch` started (accelerate.PartialState), for the model called `name`.

    The tiny model runs on the CPU, where accelerate joins processes only if it is told so.
    """
    from accelerate import PartialState

    return PartialState(cpu=name == "tiny" or not torch.accelerator.is_available(), timeout=PATIENCE)


class Tiny:
    """The bundled tiny Flux as a Model."""

    size = (256, 256)
    contrast = CONTRAST

    def __init__(self, flux: TinyFlux):
        self.flux, self.depth, self.noise_level = flux, len(flux.flux.double_blocks), flux.noise_level
        self._encoded: tuple[Tensor, Tensor] | None = None  # the last pictures and their latents: evaluation asks again and again

    def layers(self, blocks: str = "auto") -> int:
        return self.flux.layers(blocks)

    def generate(self, prompt, concepts, contrast, seed, size, steps, progress, blocks="auto") -> tuple[Tensor, Recording]:
        self.flux.tokenizer.check(prompt)
        own = {"steps": steps} if steps else {}
        return self.flux.generate(prompt, concepts, contrast, seed, size, progress=progress, blocks=blocks, **own)

    def record(self, images, concepts, contrast, captions=None, noise_level=None, seeds=range(1), token="mean",
               cross_attention=False, self_attention=True, linear=False, pooled_prompt=True, guidance=None, progress=iter,
               blocks="auto") -> dict[str, Recording]:
        latents = self._encode(images)
        passes = [self.flux.record_latents(latents, concepts, contrast, captions, noise_level, seed, token, cross_attention,
                                           self_attention, linear, blocks) for seed in progress(seeds)]
        size = tuple(images.shape[2:])
        return {space: replace(joined([one[space] for one in passes]), image_size=size) for space in passes[0]}

    def _encode(self, images: Tensor) -> Tensor:
        if self._encoded is None or not torch.equal(self._encoded[0], images):
            self._encoded = images, encode(self.flux.codec, padded(images))
        return self._encoded[1]
