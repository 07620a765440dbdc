"""Erasing while ComfyUI samples: in the latent's mask, the picture's tokens see of the picture only what is outside.

Source: comfy/samplers.py (KSamplerX0Inpaint, where the mask acts); core/erase.py; where attention is met: watch.py.
"""

from __future__ import annotations

import logging
import math

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..core.erase import Hole, look_outside
from . import compiled
from .watch import Place, Watch, by_head, plain

KEY = "concept_saliency_erase"


class Eraser:
    """What Erase under Mask adds to a model. Between runs it holds nothing. family: a naming, see core/families."""

    def __init__(self, family):
        self.family, self.watch = family, Watch(family, self.attention)
        self.holes: dict[torch.device, list[Hole]] = {}  # of this run, on every device that has asked; {} outside a run
        self.sides: tuple[int, ...] = ()  # of this run's latent
        self.met = 0  # attentions in this run
        self.name, self.ledger = compiled.register(self)

    def attach_to(self, model) -> None:
        """Put the wrappers on a MODEL, in place of those of another Erase under Mask."""
        self.detach(model)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self.sampler_sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self.apply_model)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self.diffusion_model)

    @staticmethod
    def detach(model) -> None:
        """Take Erase under Mask off a MODEL."""
        for kind in (WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL):
            model.remove_wrappers_with_key(kind, KEY)

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *args, **kwargs):
        """SAMPLER_SAMPLE wrapper: what is erased in this run is what the latent's mask lets be painted anew."""
        if math.prod(noise.shape[2:-2]) > 1:
            raise ValueError(f"Erase under Mask works on pictures, and this latent is a clip of {math.prod(noise.shape[2:-2])} frames. "
                             "Take Erase under Mask out.")
        if denoise_mask is None:
            raise ValueError("Erase under Mask was given a latent without a mask, so it does not know what to erase. Put Set Latent Noise "
                             "Mask between the latent and the sampler, and connect the mask of what shall go.")
        self.watch.prepare(guider)
        sides = tuple(noise.shape[-2:])
        masks = denoise_mask.amax(dim=1).reshape(-1, *sides).cpu()
        try:
            holes = Hole.all_of(masks, self.family.PATCH)
        except ValueError as error:
            raise ValueError(f"Erase under Mask: {error}; invert the one on the latent, or grow it less.") from error
        if not any(len(hole.inside) for hole in holes):
            logging.warning("Erase under Mask: the latent's mask is empty, and nothing is erased.")
        outer = self.holes, self.sides, self.met
        self.holes, self.sides, self.met = {masks.device: holes}, sides, 0
        try:
            samples = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)
            if not self.met:
                logging.warning("Erase under Mask: nothing was erased, only painted anew, for something stood in for the model's own "
                                "attention in every step. Take out what replaces its blocks.")
            return samples
        finally:
            self.holes, self.sides, self.met = outer

    def apply_model(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        """APPLY_MODEL wrapper: what cannot be done within compiled code."""
        options = transformer_options or {}
        kwargs |= compiled.mark(self.name, options)
        if self.holes and tuple(x.shape[-2:]) != self.sides:
            raise ValueError("Erase under Mask cannot be used with a prompt for an area, nor with context windows: the model is shown a "
                             "part of the picture there. Take a masked prompt in place of the area.")
        if self.holes and self.watch.bare:
            options = self.watch.options(executor.class_obj.diffusion_model, options, x)
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def diffusion_model(self, executor, *args, **kwargs):
        """DIFFUSION_MODEL wrapper: every block's attention is met."""
        kwargs.pop(self.name, None)
        if not torch.compiler.is_compiling() and not self.holes:  # compiled code must do for every call
            return executor(*args, **kwargs)
        return self.watch.call(executor, self.watch.given(args, kwargs), len(args))

    def attention(self, place: Place, override, function, q, k, v, heads, *args, **kwargs):
        """optimized_attention_override of one block."""
        out = plain(override, function, q, k, v, heads, *args, **kwargs)
        mask = args[0] if args else kwargs.get("mask")
        return compiled.look_outside(self, out, *by_head(heads, q, k, v), place.first, mask, kwargs.get("scale"))

    def outside(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int, mask: Tensor | None, scale: float | None) -> Tensor:
        """See core.erase.look_outside; never compiled."""
        if not self.holes:
            return out
        self.met += 1
        if out.device not in self.holes:
            self.holes[out.device] = [hole.to(out.device) for hole in next(iter(self.holes.values()))]
        return look_outside(out, q, k, v, self.holes[out.device], first, mask, scale)
