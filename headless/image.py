"""Where Flux sees concepts in a picture that already exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux.pipeline_flux_img2img import retrieve_latents
from PIL import Image
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from ..core import pictures
from ..core.concepts import DEFAULT_CONTRAST, ConceptInputs
from ..core.families.flux1 import diffusers as flux1
from ..core.recording import SPACES, joined, padded
from ..core.saliency import Saliency
from . import compiled
from .capture import Capture, EarlyExit, transformer_of
from .families import family_of
from .inputs import concept_inputs
from .runs import Seen

Progress = Callable[[Sequence[int]], Iterable[int]]
_ROUNDING = 0.01  # what half precision and an enlargement may add
_FILL = 64 + 256  # channels of a token that the Fill model sees besides the latents: the picture around the hole, and the mask


def saliency_of_image(pipe: DiffusionPipeline, image: Image.Image | Tensor, concepts: str | Sequence[str], *,
                      layers: str = "auto", temperature: float = 0.0, contrast: str | Sequence[str] = DEFAULT_CONTRAST,
                      prompt: str = "", noise_level: float = 0.5, samples: int = 1, seed: int = 0, token: str = "mean",
                      guidance_scale: float = 3.5, megapixels: float = 1.0, progress: Progress = iter) -> Saliency:
    """Saliency maps of existing pictures.

    layers, temperature: see core.saliency.saliency. All other arguments, and what is raised: see record_image.
    """
    recordings = record_image(pipe, image, concepts, contrast=contrast, prompt=prompt, noise_level=noise_level, samples=samples,
                              seed=seed, token=token, guidance_scale=guidance_scale, megapixels=megapixels, progress=progress)
    return recordings["output"].saliency(layers, temperature=temperature)


@torch.no_grad()
def record_image(pipe: DiffusionPipeline, image: Image.Image | Tensor, concepts: str | Sequence[str], *,
                 contrast: str | Sequence[str] = DEFAULT_CONTRAST, prompt: str = "", noise_level: float = 0.5,
                 samples: int = 1, seed: int = 0, token: str = "mean", cross_attention: bool = False,
                 self_attention: bool = True, linear: bool = False, pooled_prompt: bool = True, guidance_scale: float = 3.5,
                 megapixels: float = 1.0, progress: Progress = iter) -> dict[str, Seen]:
    """Recordings, by space, of existing pictures: mixed with noise, through one forward pass a sample.

    The pass stops in the last double-stream block. pipe: a Flux.1 pipeline of any kind. image: a PIL picture, which is
    turned upright as its EXIF says, or B x 3 x H x W in 0..1, of any size. prompt: what is in it. noise_level: 0, the plain
    picture, to 1, nothing but noise. samples: passes with noise from seed, seed + 1 and so on. self_attention: whether
    concepts see one another (the paper's ablation). linear: see core.stream.linear_shares. pooled_prompt: whether the prompt's
    pooled vector modulates image and text; the paper's evaluation gives zeros. guidance_scale: for models that were distilled.
    megapixels: larger pictures are shown to the model reduced to about that size, 0 for as they are; maps have the picture's
    own size all the same. progress: wraps the blocks that are run, as tqdm does.
    Raises ValueError for a model, pictures or concepts that cannot be used.
    """
    transformer = transformer_of(pipe)
    if (family := family_of(transformer)) is not flux1:
        raise ValueError(f"This is a {family.NAME} pipeline; existing pictures can be read with Flux.1 alone. In ComfyUI, Concept "
                         "Attention (Image) takes Flux.2, too.")
    if not 0 <= noise_level <= 1 or samples < 1:
        raise ValueError(f"noise_level is {noise_level:g} and samples {samples}, "
                         "expected a level of 0 to 1 and at least one sample")
    given = as_tensor(image)
    shown = pictures.resized(given, pictures.model_size(*given.shape[-2:], megapixels))
    words = replace(concept_inputs(pipe, concepts, contrast, token, cross_attention, self_attention), linear=linear)
    embeds, pooled, text_ids = pipe.encode_prompt(prompt, prompt, num_images_per_prompt=len(shown))
    pooled = pooled if pooled_prompt else torch.zeros_like(pooled)
    latents = encode(pipe, padded(shown))
    seen = surroundings(pipe, latents)
    found, ticks = [], iter(progress(range(samples * len(transformer.transformer_blocks))))
    try:
        for number in range(seed, seed + samples):
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(number % 2**64)).to(latents)
            tokens = torch.cat((pack((1 - noise_level) * latents + noise_level * noise), *seen), dim=-1)
            call = dict(hidden_states=tokens.to(embeds.dtype), encoder_hidden_states=embeds, pooled_projections=pooled,
                        txt_ids=text_ids, img_ids=positions(latents).to(text_ids),
                        timestep=torch.full((len(latents),), noise_level).to(embeds))
            if transformer.config.guidance_embeds:
                call["guidance"] = torch.full((len(latents),), guidance_scale, device=embeds.device)
            with transformer.cache_context(f"concept_saliency_{number}"):  # a step cache must not take one sample for the next
                found.append(one_pass(transformer, words, tuple(shown.shape[-2:]), call, ticks))
        next(ticks, None)
    finally:
        pipe.maybe_free_model_hooks()
    return {space: joined([recordings[space] for recordings in found]).at_size(given.shape[-2:]) for space in found[0]}


def one_pass(transformer, inputs: ConceptInputs, image_size: tuple[int, int], call: dict[str, Tensor],
             ticks: Iterator[int]) -> dict[str, Seen]:
    """One call of the transformer with the arguments `call`, up to its last double-stream block; `ticks` advances with each."""
    def tick(block, args) -> None:
        next(ticks, None)

    watch = Capture(transformer, inputs, image_size=image_size)
    handles = [block.register_forward_pre_hook(tick) for block in transformer.transformer_blocks]
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


def encode(pipe: DiffusionPipeline, pictures: Tensor) -> Tensor:
    """Model latents B x 16 x H/8 x W/8 of pictures B x 3 x H x W in 0..1, on the pipeline's device."""
    vae = pipe.vae
    latents = retrieve_latents(vae.encode((2 * pictures - 1).to(pipe._execution_device, vae.dtype)), sample_mode="argmax")
    return (latents.float() - (vae.config.shift_factor or 0)) * vae.config.scaling_factor


def surroundings(pipe: DiffusionPipeline, latents: Tensor) -> list[Tensor]:
    """What a token holds besides the latents: nothing, or for Fill an empty picture and a mask of all of it. B x N x channels.

    Raises ValueError for models made to see something else.
    """
    batch, channels, height, width = latents.shape
    more = pipe.transformer.config.in_channels - 4 * channels
    if more == 0:
        return []
    if more != _FILL:
        raise ValueError(f"This transformer takes {4 * channels + more} channels a token, expected {4 * channels} (dev, schnell, "
                         f"Kontext) or {4 * channels + _FILL} (Fill). Models with a control picture cannot be used here.")
    empty = encode(pipe, latents.new_full((batch, 3, 8 * height, 8 * width), 0.5))
    return [pack(empty), latents.new_ones(batch, height * width // 4, 256)]


def pack(latents: Tensor) -> Tensor:
    """Latents B x C x h x w -> tokens B x (h/2 * w/2) x 4C."""
    return pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def positions(latents: Tensor) -> Tensor:
    """Positions of the tokens of latents B x C x h x w: (h/2 * w/2) x 3, row by row."""
    height, width = latents.shape[-2:]
    return torch.cartesian_prod(torch.zeros(1), torch.arange(height / 2), torch.arange(width / 2))
