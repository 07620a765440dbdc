"""Concept regions while ComfyUI samples: from a step on, the positive prediction inside a region is that of a conditioning of its own.

The host does the blending: it is given the base prompts and the regions' conditionings with masks, as from ConditioningSetMask and
ConditioningCombine, so that batching, hooks, ControlNets, masks and areas are its own. The words' scores come from a Capture.
Source: comfy/samplers.py (CFGGuider.sample, process_conds, get_area_and_mult), comfy/sampler_helpers.py (prepare_model_patcher).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.hooks
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..core.live_region import Region, RegionRule, shares
from .capture import Capture

KEY = "concept_saliency_region"
_LENT = ("control", "gligen")  # what the host gives to conditionings that have none, of the positive ones


@dataclass(frozen=True)
class LiveRegion:
    """What one Concept Region node adds to a model. capture: on the same model. conditioning: ComfyUI's, of the inside. window: noise
    levels between which it acts. update: after how many steps the region is looked for again, 0 for never."""

    capture: Capture
    conditioning: list
    rule: RegionRule
    window: tuple[float, float]
    update: int = 0


class RegionRun:
    """A region during one sampling run. name: of its conditionings among the guider's; own: what these consist of, by their ids."""

    def __init__(self, region: LiveRegion, number: int):
        self.region, self.name = region, f"{KEY} {number}"
        self.entries = comfy.sampler_helpers.convert_cond(region.conditioning)  # later as the host has prepared them
        self.own = {entry["uuid"]: set(entry) for entry in self.entries}
        for entry in self.entries:
            entry.setdefault("prompt_type", "positive")
            entry.pop("default", None)  # inside its region it is not what is left over
        self.level: float | None = None
        self.age = 0  # noise levels since the region was looked for
        self.found: Region | None = None
        self.weights: Tensor | None = None  # on the latent's device; None: nothing to do
        self.acted = torch.zeros(1, dtype=torch.bool)  # in which pictures

    def weights_at(self, sigma: float, x: Tensor) -> Tensor | None:
        """The region's weights B x h x w at a noise level; None where it does nothing."""
        start, end = self.region.window
        if not end <= sigma <= start:
            return None
        if sigma != self.level:
            self.level, self.age = sigma, self.age + 1
            if self.found is None or 0 < self.region.update <= self.age:
                self.look(x)
        return self.weights

    def look(self, x: Tensor) -> None:
        """Find the region in the steps so far. Waits once for the device, for what the Capture has been copying from it anyway."""
        recorder = self.region.capture.run.recorder
        recording = next(iter(recorder.finish(recorder.default_layers).values()), None)  # Wan has no output space
        if recording is None:
            return
        self.found, self.age = self.region.rule.region(recording, tuple(x.shape[-2:])), 0
        there = self.found.weights.flatten(1).amax(dim=1) > 0
        self.acted = self.acted | there
        self.weights = self.found.weights.to(x, non_blocking=True) if bool(there.any()) else None

    def take(self, conds: dict[str, list[dict]]) -> None:
        """Its conditionings as the host has prepared them, without what it has lent them from the prompts'; and from the prompts what
        it has lent those: to a conditioning with an area it makes others of that area."""
        self.entries = [{key: value for key, value in entry.items() if key not in _LENT or key in self.own[entry["uuid"]]}
                        for entry in conds[self.name] if entry["uuid"] in self.own]
        for name in conds:
            if KEY not in name:
                conds[name] = [entry for entry in conds[name] if entry["uuid"] not in self.own]

    def notes(self) -> list[str]:
        """What has to be said of the run, once it has ended."""
        words = " or ".join(f"'{word}'" for word in self.region.capture.inputs.concepts)
        if self.found is None:
            return [f"The region of {words} was never looked for: there was no step between start_percent and end_percent with another "
                    "before it. Sample more steps, widen the two, or remove a step cache."]
        notes, all_presence, least = [], self.found.presence.tolist(), self.region.rule.min_presence
        for number, (acted, presence) in enumerate(zip(self.acted.expand(len(all_presence)).tolist(), all_presence), 1):
            nothing = f"Concept Region has changed nothing{f' in picture {number}' if len(all_presence) > 1 else ''}"
            if not acted and presence < least:
                notes.append(f"{nothing}: when it was looked for, the presence of {words} was {presence:.2f}; min_presence is {least:g}.")
            elif not acted:
                notes.append(f"{nothing}: when it was looked for, the mask of {words} was empty (presence {presence:.2f}). Try a plainer "
                             "word, contrast words that name what else is there, or a later start_percent.")
        return notes


class LiveRegions:
    """All Concept Region nodes of a model. Between runs it holds what they were given and nothing else."""

    def __init__(self, regions: tuple[LiveRegion, ...]):
        self.regions = regions
        self.run: tuple[object, list[RegionRun]] | None = None  # the guider, and every region's

    @classmethod
    def add(cls, model, region: LiveRegion) -> None:
        """Put one more region on a MODEL."""
        there = [wrapper.__self__ for wrapper in model.get_wrappers(WrappersMP.CALC_COND_BATCH, KEY)]
        cls.detach(model)
        regions = cls((*(there[0].regions if there else ()), region))
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, regions.outer_sample)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, regions.sampler_sample)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, regions.calc_cond_batch)

    @staticmethod
    def detach(model) -> None:
        """Take every region off a MODEL."""
        for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.CALC_COND_BATCH):
            model.remove_wrappers_with_key(kind, KEY)

    def outer_sample(self, executor, *args, **kwargs):
        """OUTER_SAMPLE wrapper: the regions' conditionings stand beside the prompts while the host prepares them and samples."""
        guider, noise = executor.class_obj, args[0]
        if math.prod(noise.shape[2:-2]) > 1:
            raise ValueError(f"Concept Region draws pictures, and this latent is a clip of {math.prod(noise.shape[2:-2])} frames. Take "
                             "Concept Region out; Concept Attention shows where words are in a clip.")
        cache = guider.model_options.get("transformer_options", {}).get("easycache")
        if hasattr(cache, "uuid_cache_diffs") and not hasattr(cache, "can_apply_cache_diff"):  # it fails at prompts it has not seen before
            raise ValueError("EasyCache in this version of ComfyUI cannot be used with Concept Region, whose prompt begins within the run. "
                             "Take LazyCache, or update ComfyUI.")
        outer, runs = self.run, [RegionRun(region, number) for number, region in enumerate(self.regions, 1)]
        self.run = guider, runs
        guider.conds.update({run.name: run.entries for run in runs})
        try:
            register_hooks(guider, {run.name: guider.conds[run.name] for run in runs})
            samples = executor(*args, **kwargs)
            for run in runs:
                run.region.capture.run.notes.update(dict.fromkeys(run.notes()))
            return samples
        finally:
            self.run = outer
            for run in runs:
                guider.conds.pop(run.name, None)

    def sampler_sample(self, executor, *args, **kwargs):
        """SAMPLER_SAMPLE wrapper: the host has prepared all conditionings; from here on prompts and regions are apart."""
        guider, runs = self.run
        for run in runs:
            run.take(guider.conds)
        return executor(*args, **kwargs)

    def calc_cond_batch(self, executor, model, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict):
        """CALC_COND_BATCH wrapper: the positive prompts with the regions among them, where there are any; else what was given."""
        guider, runs = self.run or (None, [])
        positive = {entry["uuid"] for entry in guider.conds.get("positive", ())} if runs else None
        mine = [i for i, cond in enumerate(conds) if cond and {entry["uuid"] for entry in cond} == positive]
        if mine:
            sigma = float(timestep.flatten()[0])  # waits for the device, as the host does for any prompt with a start and an end
            weights = [run.weights_at(sigma, x_in) for run in runs]
            if active := [(run, weight) for run, weight in zip(runs, weights) if weight is not None]:
                base, parts = shares([weight for _, weight in active])
                inside = [(run.entries, part) for (run, _), part in zip(active, parts)]
                conds = [blended(cond, base, inside, x_in, timestep) if i in mine else cond for i, cond in enumerate(conds)]
        return executor(model, conds, x_in, timestep, model_options)


def blended(prompts: list[dict], base: Tensor, inside: list[tuple[list[dict], Tensor]], x: Tensor, timestep: Tensor) -> list[dict]:
    """Prompts and the regions' conditionings as one list, with masks by which the host gives each place to whom it belongs.

    base, and the tensors of `inside`: shares B x h x w, see core.live_region.shares. The host divides by the sum of all masks, so a
    region's are in proportion to what the prompts together have there. Where a region's conditionings are not, or not now, its share
    is the prompts': the host predicts nothing where there is no mask.
    """
    nothing = torch.zeros_like(x[:, 0])
    own = [coverage(entry, x, timestep) for entry in prompts]
    total = sum((weight for weight in own if weight is not None), start=nothing)
    if any("default" in entry for entry in prompts):  # it fills up what the others leave of 1
        total = total.clamp(min=1)
    left, parts = widened(base, total), []
    for entries, share in inside:
        share = widened(share, total)
        there = [(entry, weight) for entry in entries if (weight := coverage(entry, x, timestep)) is not None]
        left = left + torch.where(sum((weight for _, weight in there), start=nothing) > 0, 0.0, share)
        parts += [masked(entry, weight * share * total) for entry, weight in there]
    return [entry if weight is None else masked(entry, weight * left) for entry, weight in zip(prompts, own)] + parts


def coverage(entry: dict, x: Tensor, timestep: Tensor) -> Tensor | None:
    """The weight B x ... x h x w that the host gives a prepared conditioning at each place; None where it leaves it out now, or to
    what the others leave over."""
    there = None if "default" in entry else comfy.samplers.get_area_and_mult(entry, x, timestep)
    if there is None:
        return None
    weight = torch.zeros_like(x[:, 0])
    part = weight
    for axis, (size, first) in enumerate(zip(there.area[:x.ndim - 2], there.area[x.ndim - 2:]) if there.area is not None else (), 1):
        part = part.narrow(axis, first, size)
    part += there.mult[:, 0]
    return weight


def widened(share: Tensor, weight: Tensor) -> Tensor:
    """Shares B x h x w for a latent with frames, too."""
    return share.view(len(share), *[1] * (weight.ndim - 3), *share.shape[-2:])


def masked(entry: dict, weight: Tensor) -> dict:
    """A prepared conditioning with this mask in place of every weight it had."""
    return {**entry, "mask": weight, "mask_strength": 1.0, "strength": 1.0}


def register_hooks(guider, conds: dict[str, list[dict]]) -> None:
    """Do for conditionings that come late what CFGGuider.sample has done for the prompts: make their hooks known to the model.

    The host takes them off again with the prompts' own.
    """
    patcher, options = guider.model_patcher, guider.model_options
    comfy.samplers.preprocess_conds_hooks(conds)
    new, every = comfy.hooks.HookGroup(), comfy.hooks.HookGroup()
    for entries in conds.values():
        comfy.sampler_helpers.get_hooks_from_cond(entries, new)
    if not new.hooks:
        return
    for entries in guider.conds.values():
        comfy.sampler_helpers.get_hooks_from_cond(entries, every)
    registered = options.get("registered_hooks") or comfy.hooks.HookGroup()
    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
    for kind in (comfy.hooks.EnumHookType.TransformerOptions, comfy.hooks.EnumHookType.AdditionalModels):
        for hook in new.get_type(kind):
            if not registered.contains(hook):
                hook.add_hook_patches(patcher, options, target, registered)
    patcher.register_all_hook_patches(every, target, options, registered)
    options["registered_hooks"] = registered
    comfy.samplers.filter_registered_hooks_on_conds(conds, options)
    patcher.hook_mode = comfy.hooks.EnumHookMode.MaxSpeed  # weights of prompts and regions alternate: keep them, do not compute them anew
