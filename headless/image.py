"""Where Flux sees concepts in a picture that already exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..core import pictures
from ..core.concepts import DEFAULT_CONTRAST, ConceptInputs
from ..core.families.naming import Pipeline, ReadingNaming
from ..core.recording import SPACES, joined, padded
from ..core.saliency import Saliency
from . import compiled
from .capture import Capture, EarlyExit, transformer_of
from .families import family_of, plain
from .inputs import concept_inputs
from .runs import Seen

Progress = Callable[[Iterable], Iterable]
_ROUNDING = 0.01  # what half precision and an enlargement may add


def saliency_of_image(pipe: DiffusionPipeline, image: Image.Image | Tensor, concepts: str | Sequence[str], *,
                      layers: str = "auto", temperature: float = 0.0, contrast: str | Sequence[str] = DEFAULT_CONTRAST,
                      prompt: str = "", noise_level: float = 0.5, samples: int = 1, seed: int = 0, token: str = "mean",
                      guidance_scale: float = 3.5, megapixels: float = 1.0, progress: Progress = iter,
                      blocks: str = "auto") -> Saliency:
    """Saliency maps of existing pictures.

    layers, temperature: see core.saliency.saliency. All other arguments, and what is raised: see record_image.
    """
    recordings = record_image(pipe, image, concepts, contrast=contrast, prompt=prompt, noise_level=noise_level, samples=samples,
                              seed=seed, token=token, guidance_scale=guidance_scale, megapixels=megapixels, progress=progress,
                              blocks=blocks)
    return recordings["output"].saliency(layers, temperature=temperature)


@torch.no_grad()
def record_image(pipe: DiffusionPipeline, image: Image.Image | Tensor, concepts: str | Sequence[str], *,
                 contrast: str | Sequence[str] = DEFAULT_CONTRAST, prompt: str = "", noise_level: float = 0.5,
                 samples: int = 1, seed: int = 0, token: str = "mean", cross_attention: bool = False,
                 self_attention: bool = True, linear: bool = False, pooled_prompt: bool = True, guidance_scale: float = 3.5,
                 megapixels: float = 1.0, progress: Progress = iter, blocks: str = "auto") -> dict[str, Seen]:
    """Recordings, by space, of existing pictures: mixed with noise, through one forward pass a sample.

    The pass stops in the last block that is watched. pipe: a pipeline of any kind. image: a PIL picture, which is turned
    upright as its EXIF says, or B x 3 x H x W in 0..1, of any size. prompt: what is in it. noise_level: 0, the plain
    picture, to 1, nothing but noise. samples: passes with noise from seed, seed + 1 and so on. self_attention: whether
    concepts see one another (the paper's ablation). linear: scores as in the paper's PascalVOC experiments, see
    core.stream.linear_shares, and in cross-attention of the image's queries with the concepts' keys. pooled_prompt: whether the prompt's
    pooled vector modulates image and text; the paper's evaluation gives zeros. guidance_scale: for models that were distilled.
    megapixels: larger pictures are shown to the model reduced to about that size, 0 for as they are; maps have the picture's
    own size all the same. progress: wraps the blocks that are run, as tqdm does. blocks: see capture.
    Raises ValueError for a model, pictures or concepts that cannot be used.
    """
    transformer, family = transformer_of(pipe), family_of(transformer_of(pipe))
    if not isinstance(family, ReadingNaming):
        raise ValueError(f"This is a {family.NAME} pipeline; existing pictures of it can be read in ComfyUI alone, with Concept Attention "
                         "(Image).")
    if not isinstance(pipe, Pipeline) or pipe.vae is None:
        raise ValueError(f"This {type(pipe).__name__} has no autoencoder to show the model a picture with. Load it with its vae.")
    if not 0 <= noise_level <= 1 or samples < 1:
        raise ValueError(f"noise_level is {noise_level:g} and samples {samples}, "
                         "expected a level of 0 to 1 and at least one sample")
    given = as_tensor(image)
    height, width = given.shape[-2:]
    shown = pictures.resized(given, pictures.model_size(height, width, megapixels))
    seen_size = shown.shape[-2], shown.shape[-1]
    words = replace(concept_inputs(pipe, concepts, contrast, token, cross_attention, self_attention, blocks), linear=linear)
    latents = family.encode(pipe, padded(shown, family.PIXELS))
    arguments = family.reading(plain(pipe), latents, prompt, guidance_scale, pooled_prompt)
    found, ticks = [], iter(progress(range(samples * len(family.blocks(transformer, family.DEFAULTS.singles_of(blocks))))))
    try:
        for number in range(seed, seed + samples):
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(number % 2**64)).to(latents)
            call = arguments((1 - noise_level) * latents + noise_level * noise, noise_level)
            apart = getattr(pipe.transformer, "cache_context", nullcontext)  # few models have none
            with apart(f"concept_saliency_{number}"):  # a step cache must not take one sample for the next
                found.append(one_pass(transformer, words, seen_size, call, ticks))
        next(ticks, None)
    finally:
        pipe.maybe_free_model_hooks()
    return {space: joined([recordings[space] for recordings in found]).at_size((height, width)) for space in found[0]}


def one_pass(transformer, inputs: ConceptInputs, image_size: tuple[int, int], call: dict[str, Tensor],
             ticks: Iterator[int]) -> dict[str, Seen]:
    """One call of the transformer with the arguments `call`, up to its last block that is watched; `ticks` advances with each."""
    def tick(block, args) -> None:
        next(ticks, None)

    watch = Capture(transformer, inputs, image_size=image_size)
    handles = [block.register_forward_pre_hook(tick) for block in watch.family.blocks(transformer, watch.singles)]
    try:
        watch.attach()
        with compiled.eagerly(transformer):  # too little is run to be worth compiling
            transformer(**call)
    except EarlyExit:
        pass
    finally:
        watch.detach()
        for handle in handles:
            handle.remove()
    return {space: watch.recordings.in_space(space).latest for space in (SPACES if inputs.cross_attention else SPACES[:1])}


def as_tensor(image: Image.Image | Tensor) -> Tensor:
    """B x 3 x H x W float32 in 0..1; transparency is dropped. Raises ValueError for anything but pictures."""
    if isinstance(image, Image.Image):
        return pictures.as_tensor(image)
    expected = "expected a PIL picture or a tensor of pictures x 3 x height x width in 0..1"
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        given = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ValueError(f"image is {given}, {expected}")
    if not image.is_floating_point():
        raise ValueError(f"image holds {image.dtype}, {expected}. Give image / 255.")
    low, high = float(image.min()), float(image.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # what is not a number is neither
        advice = "Give (image + 1) / 2." if -1.01 <= low < 0 and high <= 1.01 else "Give image / 255." if low >= 0 and high <= 256 else ""
        raise ValueError(f"image holds numbers from {low:g} to {high:g}, {expected}. {advice}".rstrip())
    return image.float().clamp(0, 1)
