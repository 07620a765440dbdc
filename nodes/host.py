"""Everything that depends on how ComfyUI runs a model: patching, batch layout, text encoding.

Source: comfy/samplers.py (calc_cond_batch), comfy/patcher_extension.py, comfy/ldm/flux/model.py.
"""

from __future__ import annotations

import math
from typing import Callable

import comfy.ldm.flux.model
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..core.families import Defaults, flux1
from ..core.recording import Recorder, joined
from ..core.stream import ConceptStream
from .runs import ConceptRuns, Fingerprint, Run

KEY = "concept_saliency"
DEFAULTS_KEY = "concept_saliency_defaults"  # a model's own Defaults, attached by the node that loads it
_FORWARD = ("x", "timestep", "context", "y", "guidance", "ref_latents", "control", "transformer_options")


def family_of(model):
    """The family module of a MODEL. Raises ValueError, naming what was found, for a model that is not supported."""
    transformer = model.get_model_object("diffusion_model")
    params = getattr(transformer, "params", None)
    is_flux1 = (isinstance(transformer, comfy.ldm.flux.model.Flux) and getattr(transformer, "vector_in", None) is not None
                and not getattr(params, "global_modulation", False) and not getattr(params, "txt_norm", False))
    if not is_flux1:
        raise ValueError(f"Concept Attention cannot look into this model: it is a {type(model.model).__name__} "
                         f"({type(transformer).__name__}). Supported: Flux.1 (dev, schnell, Fill, Kontext and models made from them). "
                         "Connect a Flux.1 model.")
    return flux1


def phrase_encoder(clip) -> Callable[[str], Tensor]:
    """How a CLIP encodes one phrase: T x D, the phrase's own tokens only; prompt-weight syntax is taken literally."""

    def tokenize(text: str) -> tuple[dict, list]:
        tokens = clip.tokenize(text, disable_weights=True)
        key = "t5xxl" if "t5xxl" in tokens else next(iter(tokens))
        return tokens, tokens[key][0]

    _, empty = tokenize("")
    end = empty[0][0]  # with T5, an empty text starts with its end token

    def encode(phrase: str) -> Tensor:
        tokens, row = tokenize(phrase)
        count = next((i for i, (token, *_) in enumerate(row) if isinstance(token, int) and token == end), len(row))
        return clip.encode_from_tokens(tokens)[0, :count].float().cpu()

    return encode


def patch(model, family, asked, window: tuple[float, float], runs: ConceptRuns):
    """A clone of the MODEL that records every sampling run into `runs`; the pictures stay the same to the last bit.

    asked: see asking.Asked. window: start and end as shares of sampling, 0 to 1.
    """
    patched = model.clone()
    sampling = patched.get_model_object("model_sampling")
    sigmas = tuple(float(sampling.percent_to_sigma(percent)) for percent in window)
    Capture(family, asked, defaults_of(patched, family), sigmas, runs).attach_to(patched)
    return patched


def record_image(model, family, asked, latent: Tensor, image_size: tuple[int, int], conditioning, noise_level: float, seeds) -> Run:
    """Recordings of existing pictures: their latents B x 16 x h x w, mixed with noise, through one partial forward pass a seed.

    The pass stops at the last double-stream block's attention. conditioning: ComfyUI's CONDITIONING.
    """
    patched, runs = model.clone(), ConceptRuns()
    for wrapper in (WrappersMP.OUTER_SAMPLE, WrappersMP.DIFFUSION_MODEL):
        patched.remove_wrappers_with_key(wrapper, KEY)  # a sampler's Concept Attention before this node is not asked
    Capture(family, asked, defaults_of(patched, family), (1.0, 0.0), runs, image_size).attach_to(patched)

    @torch.no_grad()
    def one_pass(predict, x, sigmas, extra_args=None, callback=None, disable=None):
        try:
            predict(x, sigmas[:1].expand(len(x)), **extra_args)
        except Enough:
            pass
        return x

    collected, bar = [], comfy.utils.ProgressBar(len(seeds))
    for seed in seeds:
        comfy.model_management.throw_exception_if_processing_interrupted()
        comfy.sample.sample_custom(patched, comfy.sample.prepare_noise(latent, seed), 1.0, comfy.samplers.KSAMPLER(one_pass),
                                   torch.tensor([noise_level, 0.0]), conditioning, conditioning, latent, disable_pbar=True, seed=seed)
        collected.append(runs.find(None)[0])
        bar.update(1)
    spaces = collected[0].recordings
    return Run(Fingerprint.of(latent), {space: joined([run.recordings[space] for run in collected]) for space in spaces}, collected[0].notes)


def attach_defaults(model, defaults: Defaults) -> None:
    """Tell later nodes what "auto" means for this MODEL."""
    model.set_attachments(DEFAULTS_KEY, defaults)


def defaults_of(model, family) -> Defaults:
    """What "auto" means for this MODEL: its own, else its family's."""
    return model.get_attachment(DEFAULTS_KEY) or family.DEFAULTS


class Enough(Exception):
    """Everything that was asked for has been seen; the rest of the forward pass is not needed."""


class Capture:
    """What one Concept Attention node adds to a model. Between runs it holds the concept vectors and nothing else."""

    def __init__(self, family, asked, defaults: Defaults, window: tuple[float, float], runs: ConceptRuns,
                 image_size: tuple[int, int] | None = None):
        self.family, self.asked, self.defaults, self.window, self.runs = family, asked, defaults, window, runs
        self.image_size = image_size  # of an existing picture; then a call stops when all of it has been seen
        self.run: ActiveRun | None = None

    def attach_to(self, model) -> None:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.outer_sample)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self.diffusion_model)

    def outer_sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        """OUTER_SAMPLE wrapper: one recording per sampling run, begun and ended here whatever happens in between."""
        guider = executor.class_obj
        depth = len(guider.model_patcher.get_model_object("diffusion_model").double_blocks)
        height, width = noise.shape[-2:]
        recorder = Recorder(self.asked.concepts, self.asked.contrast, self.family.NAME, self.defaults, sigmas.tolist(), depth,
                            self.image_size or (height * 8, width * 8))
        outer, self.run = self.run, ActiveRun(recorder, tuple(noise.shape))
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            self.runs.keep(self.run.close(Fingerprint.of(samples)))
            return samples
        finally:
            self.run = outer

    @torch.compiler.disable()
    def diffusion_model(self, executor, *args, **kwargs):
        """DIFFUSION_MODEL wrapper: look on at one call of the transformer."""
        call = {**dict(zip(_FORWARD, args)), **kwargs}
        options, run = call.get("transformer_options") or {}, self.run
        rows = run.positive_rows(call["x"], options, self.window) if run is not None else None
        if rows is None:
            return executor(*args, **kwargs)
        transformer, context, guidance = executor.class_obj, call["context"], call.get("guidance")
        patch_size = transformer.patch_size
        grid = tuple(math.ceil(side / patch_size) for side in call["x"].shape[-2:])
        stream = ConceptStream(self.family, transformer, self.asked.vectors.to(context), call["timestep"][rows],
                               None if guidance is None else guidance[rows], self.asked.cross_attention)
        stop_after = None if self.image_size is None else len(transformer.double_blocks)
        options = watched_options(options, transformer.double_blocks, stream, rows, grid[0] * grid[1], stop_after)
        if len(args) > _FORWARD.index("transformer_options"):
            args = [*args]
            args[_FORWARD.index("transformer_options")] = options
        else:
            kwargs = {**kwargs, "transformer_options": options}
        try:
            result = executor(*args, **kwargs)
        except Enough:
            run.add(options, stream, len(transformer.double_blocks))
            raise
        run.add(options, stream, len(transformer.double_blocks))
        return result


class ActiveRun:
    """A sampling run while it lasts."""

    def __init__(self, recorder: Recorder, shape: tuple[int, ...]):
        self.recorder, self.shape = recorder, shape
        self.seen: set[tuple] = set()
        self.notes: dict[str, None] = {}  # ordered and without repetitions

    def positive_rows(self, x: Tensor, options: dict, window: tuple[float, float]) -> slice | None:
        """The rows of this call that hold positive prompts not yet recorded at this noise level; None to pass it by."""
        conds, sigma = options.get("cond_or_uncond"), sigma_of(options)
        if conds is None or sigma is None or not window[1] <= sigma <= window[0] or not self.recorder.wants(sigma):
            return None
        positive = [i for i, cond in enumerate(conds) if cond == 0]
        if not positive:
            return None
        if x.shape[-2:] != self.shape[-2:]:
            self.notes["Prompts that apply to an area only are not recorded; use masked prompts to have them recorded."] = None
            return None
        names = options.get("uuids") or conds
        if all((sigma, names[i]) in self.seen for i in positive):
            return None  # a second look by guidance (skip-layer, perturbed) or by a second-order sampler
        if positive != list(range(positive[0], positive[-1] + 1)):
            raise RuntimeError(f"Concept Attention expects positive prompts side by side in a batch, but got the order {conds}.")
        self.seen.update((sigma, names[i]) for i in positive)
        batch = x.shape[0] // len(conds)
        return slice(positive[0] * batch, (positive[-1] + 1) * batch)

    def add(self, options: dict, stream: ConceptStream, depth: int) -> None:
        """Keep the scores of one call, averaged over its positive prompts."""
        if any(len(scores) != depth for scores in stream.scores.values()):
            self.notes["Steps in which another node, or a ComfyUI that this pack does not know, skips or replaces a block's attention "
                       "are not recorded."] = None
            return
        scores = {space: torch.stack(s).unflatten(1, (-1, self.shape[0])).mean(dim=1) for space, s in stream.scores.items()}
        self.recorder.add(sigma_of(options), scores)

    def close(self, fingerprint: Fingerprint) -> Run:
        recordings = self.recorder.finish()
        notes = [*self.notes, *self.recorder.notes]
        if not recordings and not notes:
            notes = ["No step of this sampler lay between start_percent and end_percent, or a step cache skipped all of them. "
                     "Widen the window or remove the cache."]
        return Run(fingerprint, recordings, tuple(notes))


def sigma_of(options: dict) -> float | None:
    """The noise level of a call, 1 to 0."""
    sigmas = options.get("sigmas")
    return None if sigmas is None else float(sigmas.flatten()[0])


def watched_options(options: dict, blocks, stream: ConceptStream, rows: slice, image_tokens: int, stop_after: int | None) -> dict:
    """transformer_options in which every double block is watched, whatever stood there before.

    stop_after: raise Enough once that many blocks have been watched; None to run on.
    """
    replace = options.get("patches_replace", {})
    dit = dict(replace.get("dit", {}))
    for index, block in enumerate(blocks):
        dit["double_block", index] = watched_block(block, dit.get(("double_block", index)), stream, rows, image_tokens, stop_after)
    return {**options, "patches_replace": {**replace, "dit": dit}}


def watched_block(block, before, stream: ConceptStream, rows: slice, image_tokens: int, stop_after: int | None):
    """A double_block replacement that runs the block, or whatever replaced it before, and looks on at its attention."""

    @torch.compiler.disable()
    def run(args: dict, extra: dict) -> dict:
        first, pe, waiting = args["txt"].shape[1], args["pe"], True
        image = slice(first, first + image_tokens)  # reference latents stand after the picture's own tokens
        options = args.get("transformer_options") or {}
        override = options.get("optimized_attention_override")

        def attention(function, q, k, v, heads, *rest, **kwargs):
            nonlocal waiting
            known = isinstance(k, Tensor) and isinstance(v, Tensor) and k.shape[2] >= image.stop
            watching, waiting = waiting and known, False
            seen = (k[rows][:, :, image], v[rows][:, :, image]) if watching else None
            out = override(function, q, k, v, heads, *rest, **kwargs) if override else function(q, k, v, heads, *rest, **kwargs)
            if watching:
                rotation = pe if pe.shape[0] == 1 else pe[rows]
                stream.watch(block, *seen, out[rows][:, image], rotation[:, :, image])
                if len(stream.scores["output"]) == stop_after:
                    raise Enough
            return out

        args = {**args, "transformer_options": {**options, "optimized_attention_override": attention}}
        return before(args, extra) if before is not None else extra["original_block"](args)

    return run
