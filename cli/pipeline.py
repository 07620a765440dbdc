"""A pipeline of diffusers as the shell's Model."""

from __future__ import annotations

import inspect
from dataclasses import replace

import diffusers
import torch
from diffusers import DiffusionPipeline
from packaging.version import Version
from torch import Tensor

from ..core.concepts import DEFAULT_CONTRAST
from ..core.recording import Recording
from ..headless.capture import capture, transformer_of
from ..headless.families import family_of
from ..headless.image import record_image

DTYPE = "dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype"  # as diffusers calls it
_VIDEO_SIZE = 480, 848  # pixels that models for videos were trained at


class Pipeline:
    """name: a folder, or a repository on the hub, which is downloaded.

    Raises ValueError for a name that cannot be loaded, and for a model that cannot be looked into.
    """

    contrast = DEFAULT_CONTRAST
    noise_level = 0.5  # the paper's

    def __init__(self, name: str, device: torch.device):
        try:
            pipe = DiffusionPipeline.from_pretrained(name, **{DTYPE: torch.float32 if device.type == "cpu" else torch.bfloat16})
        except (OSError, ValueError) as error:
            raise ValueError(f"--model is '{name}', which diffusers cannot load: {error}\nGive tiny, a folder that holds a pipeline, "
                             "or a repository such as black-forest-labs/FLUX.1-schnell.") from error
        self.transformer = transformer_of(pipe)
        self.family = family_of(self.transformer)
        self.depth = len(self.family.blocks(self.transformer))
        self.pipe = pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.size = _VIDEO_SIZE if hasattr(self.family, "COMPRESSION") else (
            getattr(pipe, "default_sample_size", 128) * pipe.vae_scale_factor,) * 2

    def layers(self, blocks: str = "auto") -> int:
        return len(self.family.blocks(self.transformer, self.family.DEFAULTS.singles_of(blocks)))

    def generate(self, prompt, concepts, contrast, seed, size, steps, progress, blocks="auto") -> tuple[Tensor, Recording]:
        told = self.family.drawing(self.pipe.transformer) | ({"num_inference_steps": steps} if steps else {})
        ticks = iter(progress(range(told["num_inference_steps"])))

        def tick(pipe, step, timestep, state) -> dict:
            next(ticks, None)
            return state

        if "callback_on_step_end" in inspect.signature(type(self.pipe).__call__).parameters:  # LongCat-Image's takes none
            told["callback_on_step_end"] = tick
        with capture(self.pipe, concepts, contrast=contrast, blocks=blocks) as recordings:
            output = self.pipe(prompt, height=size[0], width=size[1], output_type="pt",
                               generator=torch.Generator().manual_seed(seed), **told)
        next(ticks, None)
        images = output.frames[:, 0] if hasattr(self.family, "COMPRESSION") else output.images
        return images.float().cpu(), recordings.latest

    def record(self, images, concepts, contrast, captions=None, noise_level=None, seeds=range(1), token="mean",
               cross_attention=False, self_attention=True, linear=False, pooled_prompt=True, guidance=None, progress=iter,
               blocks="auto") -> dict[str, Recording]:
        level = self.noise_level if noise_level is None else noise_level
        pictures = [record_image(self.pipe, image, concepts, contrast=contrast, prompt=caption, noise_level=level, seed=seeds[0],
                                 samples=len(seeds), token=token, cross_attention=cross_attention, self_attention=self_attention,
                                 linear=linear, pooled_prompt=pooled_prompt, guidance_scale=3.5 if guidance is None else guidance,
                                 megapixels=0, progress=progress, blocks=blocks)
                    for image, caption in zip(images.split(1), captions or [""] * len(images), strict=True)]
        return {space: replace(first, scores=torch.cat([one[space].scores for one in pictures], dim=2))
                for space, first in pictures[0].items()}
