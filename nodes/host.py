"""What ComfyUI's own objects tell: which family a MODEL is, how a CLIP encodes a phrase, one pass over a picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.ldm.lumina.model
import comfy.ldm.modules.diffusionmodules.mmdit
import comfy.ldm.qwen_image.model
import comfy.ldm.wan.model
import comfy.model_management
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..core.concepts import ConceptInputs, own_tokens
from ..core.families import FAMILIES, Defaults
from ..core.families.chroma import comfyui as chroma
from ..core.families.chroma_radiance import comfyui as chroma_radiance
from ..core.families.flux1 import comfyui as flux1
from ..core.families.flux2 import comfyui as flux2
from ..core.families.hunyuan_image import comfyui as hunyuan_image
from ..core.families.hunyuan_video import comfyui as hunyuan_video
from ..core.families.hunyuan_video15 import comfyui as hunyuan_video15
from ..core.families.krea2 import comfyui as krea2
from ..core.families.longcat_image import comfyui as longcat_image
from ..core.families.lumina2 import comfyui as lumina2
from ..core.families.ovis_image import comfyui as ovis_image
from ..core.families.qwen_image import comfyui as qwen_image
from ..core.families.sd3 import comfyui as sd3
from ..core.families.wan import comfyui as wan
from ..core.families.wan22 import comfyui as wan22
from ..core.families.z_image import comfyui as z_image
from ..core.live_region import RegionRule
from ..core.recording import joined
from . import compiled
from .capture import Capture
from .eraser import Eraser
from .live_preview import LivePreview
from .live_region import LiveRegion, LiveRegions
from .runs import ConceptRuns, Fingerprint, Run

try:
    from comfy.ldm.krea2.model import SingleStreamDiT
except ImportError:
    SingleStreamDiT: tuple = ()  # older hosts have none, and nothing is an instance of it

DEFAULTS_KEY = "concept_saliency_defaults"  # a model's own Defaults, attached by the node that loads it


# Which class of ComfyUI's a family's transformer is
_TRANSFORMERS = {**dict.fromkeys((flux1, flux2, ovis_image, longcat_image), comfy.ldm.flux.model.Flux),
                 z_image: comfy.ldm.lumina.model.NextDiT, lumina2: comfy.ldm.lumina.model.NextDiT, krea2: SingleStreamDiT,
                 qwen_image: comfy.ldm.qwen_image.model.QwenImageTransformer2DModel, chroma: comfy.ldm.chroma.model.Chroma,
                 chroma_radiance: comfy.ldm.chroma.model.Chroma,
                 sd3: comfy.ldm.modules.diffusionmodules.mmdit.MMDiT,
                 **dict.fromkeys((hunyuan_image, hunyuan_video, hunyuan_video15), comfy.ldm.hunyuan_video.model.HunyuanVideo),
                 wan: comfy.ldm.wan.model.WanModel, wan22: comfy.ldm.wan.model.WanModel}


def family_of(model):
    """The family of a MODEL, in ComfyUI's naming. Raises ValueError, naming what was found, for a model that is not supported."""
    transformer = compiled.original(model.get_model_object("diffusion_model"))
    for family, kind in _TRANSFORMERS.items():
        if isinstance(transformer, kind) and family.fits(transformer):
            return family
    supported = ", ".join(family.TITLE for family in FAMILIES.values())
    raise ValueError(f"Concept Attention cannot look into this model: it is a {type(model.model).__name__} "
                     f"({type(transformer).__name__}). Supported: {supported}. Connect one of these; where it is one, update ComfyUI.")


def phrase_encoder(clip, family) -> Callable[[str], Tensor]:
    """How a CLIP encodes one phrase: T x D, the phrase's own tokens only; prompt-weight syntax is taken literally."""
    def loaded(key: str) -> bool:
        """Whether one of several text encoders is there; a MODEL can do without some."""
        model = getattr(clip, "cond_stage_model", None)
        return getattr(model, key, getattr(model, f"clip_{key}", True)) is not None

    def tokenize(text: str) -> tuple[dict, list]:
        tokens = clip.tokenize(text, **family.TOKENIZE)
        row = tokens[next((key for key in family.TEXT_KEYS if key in tokens and loaded(key)), next(iter(tokens)))][0]
        return tokens, [token if isinstance(token, int) else None for token, *_ in row]

    def unpadded(row: list) -> list:
        return row[:len(row) - sum(1 for _ in takewhile(padding.__contains__, reversed(row)))]

    _, empty = tokenize("")
    padding = set(empty[-1:]) if empty[-2:-1] == empty[-1:] else set()  # an empty phrase ends with more than one of it

    def encode(phrase: str) -> Tensor:
        tokens, row = tokenize(phrase)
        vectors, own = clip.encode_from_tokens(tokens)[0], own_tokens(unpadded(row), unpadded(empty))
        cut = max(0, len(row) - len(vectors) - getattr(family, "CUT_BEHIND", 0))  # of the template's beginning, after it was encoded
        return vectors[own.start - cut:own.stop - cut].float().cpu()

    return encode


def patch(model, family, inputs: ConceptInputs, window: tuple[float, float], runs: ConceptRuns, preview: LivePreview | None = None):
    """A clone of the MODEL that records every sampling run into `runs`; the pictures stay the same to the last bit.

    family: as family_of gives it. window: start and end as shares of sampling, 0 to 1. preview: shows the maps so far.
    """
    patched = model.clone()
    Capture(family, inputs, defaults_of(patched, family), noise_levels(patched, window), runs, preview=preview).attach_to(patched)
    return patched


def add_region(model, family, inputs: ConceptInputs, conditioning, rule: RegionRule, window: tuple[float, float], update: int,
               runs: ConceptRuns):
    """A clone of the MODEL in which a conditioning takes over where the words take shape; see nodes.live_region.LiveRegion.

    window: start and end as shares of sampling, 0 to 1. The words are recorded into `runs` during the whole run.
    """
    if hasattr(model, "is_dynamic") and model.is_dynamic() and comfy.sampler_helpers.cond_has_hooks(conditioning):
        patched = model.get_non_dynamic_delegate()  # as CFGGuider does for prompts with hooks
    else:
        patched = model.clone()
    capture = Capture(family, inputs, defaults_of(patched, family), noise_levels(patched, (0.0, 1.0)), runs)
    capture.attach_to(patched)
    LiveRegions.add(patched, LiveRegion(capture, conditioning, rule, noise_levels(patched, window), update))
    return patched


def erase(model, family):
    """A clone of the MODEL that draws, in a latent's mask, from the surroundings alone; see core.erase."""
    patched = model.clone()
    Eraser(family).attach_to(patched)
    return patched


def noise_levels(model, window: tuple[float, float]) -> tuple[float, ...]:
    """Shares of sampling as the model's noise levels."""
    sampling = model.get_model_object("model_sampling")
    return tuple(float(sampling.percent_to_sigma(percent)) for percent in window)


def record_image(model, family, inputs: ConceptInputs, latent: Tensor, image_size: tuple[int, int], conditioning, noise_level: float,
                 seeds) -> Run:
    """Recordings of existing pictures: their latents B x channels x h x w, mixed with noise, through one partial forward pass a seed.

    The pass stops at the attention of the last block that is recorded. conditioning: ComfyUI's CONDITIONING.
    """
    patched, runs = model.clone(), ConceptRuns()
    Capture.detach_all(patched)  # what of ours stands before this node, for a sampler, has no part in it
    LiveRegions.detach(patched)
    Eraser.detach(patched)
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, compiled.COMPILE_KEY)  # too little is run to be worth compiling
    Capture(family, inputs, defaults_of(patched, family), (1.0, 0.0), runs, image_size).attach_to(patched)

    @torch.no_grad()
    def one_pass(predict, x, sigmas, extra_args=None, callback=None, disable=None):
        predict(x, sigmas[:1].expand(len(x)), **extra_args)
        return x

    collected, bar = [], comfy.utils.ProgressBar(len(seeds))
    for seed in seeds:
        comfy.model_management.throw_exception_if_processing_interrupted()
        comfy.sample.sample_custom(patched, comfy.sample.prepare_noise(latent, seed), 1.0, comfy.samplers.KSAMPLER(one_pass),
                                   torch.tensor([noise_level, 0.0]), conditioning, conditioning, latent, disable_pbar=True, seed=seed)
        collected.append(runs.find(None)[0])
        bar.update(1)
    seen = [run.recordings for run in collected if run.recordings]
    recordings = {space: joined([each[space] for each in seen]) for space in seen[0]} if seen else {}
    return Run(Fingerprint.of(latent), recordings, tuple(dict.fromkeys(note for run in collected for note in run.notes)))


def attach_defaults(model, defaults: Defaults) -> None:
    """Tell later nodes what "auto" means for this MODEL."""
    model.set_attachments(DEFAULTS_KEY, defaults)


def defaults_of(model, family) -> Defaults:
    """What "auto" means for this MODEL: its own, else its family's."""
    return model.get_attachment(DEFAULTS_KEY) or family.DEFAULTS


