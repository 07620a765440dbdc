"""A sampling run while it lasts: which of the transformer's calls are looked at, and what has been seen in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.recording import Recorder
from ..core.stream import ConceptStream
from . import compiled
from .runs import Fingerprint, Run


@dataclass
class Call:
    """One call of the transformer that is looked at. rows: of its batch; either a slice or their numbers. sigma: its noise level."""

    rows: slice | list[int]
    sigma: float
    timestep: Tensor | None = None  # what a transformer that passes wrappers by is given, one a row of the batch
    transformer: torch.nn.Module | None = None
    blocks: list[torch.nn.Module] | None = None
    stream: ConceptStream | None = None

    def begin(self, stream: ConceptStream) -> None:
        """The concepts' way begins. As `keep`, with what stays as it is."""
        self.stream = stream
        with compiled.unrecorded():
            stream.modulation, stream.pe = stream.modulation.clone(), None if stream.pe is None else stream.pe.clone()
        self.keep()

    def keep(self) -> None:
        """Copy what outlives the block to where the Comfy Compiler has no part in it, whatever the model's layers have done meanwhile."""
        with compiled.unrecorded():
            self.stream.states = self.stream.states.clone()
            for scores in self.stream.scores.values():
                scores[-1:] = [newest.clone() for newest in scores[-1:]]


class ActiveRun:
    """A sampling run while it lasts."""

    def __init__(self, recorder: Recorder, vectors: Tensor, shape: tuple[int, ...], guider):
        self.recorder, self.shape, self.guider = recorder, shape, guider
        self.vectors = {(vectors.device, vectors.dtype): vectors}  # brought to a device once a run, and given up with it
        self.seen: set[tuple] = set()
        self.notes: dict[str, None] = {}  # ordered and without repetitions
        self.unseen: set[float] = set()  # noise levels at which not every block ran before our eyes

    def call(self, x: Tensor, options: dict, window: tuple[float, float]) -> Call | None:
        """What to look at: the rows that hold positive prompts not yet recorded at this noise level; None to pass the call by."""
        conds = options.get("cond_or_uncond") or []
        names, positives = options.get("uuids") or conds, self.positive()
        if not positives.intersection(names) or options.get("sigmas") is None:
            return None
        sigma = float(options["sigmas"].flatten()[0])  # the one place that waits for the device
        positive = [i for i, name in enumerate(names) if name in positives and (sigma, name) not in self.seen]
        if not positive:  # a second look is one by guidance (skip-layer, perturbed) or by a second-order sampler
            return None
        if not window[1] <= sigma <= window[0] or not self.recorder.wants(sigma):
            return None
        if x.shape[2:] != self.shape[2:]:
            self.notes["Prompts that apply to an area only are not recorded; use masked prompts to have them recorded. Context windows "
                       "over a video are not recorded, either."] = None
            return None
        self.seen.update((sigma, names[i]) for i in positive)
        batch = x.shape[0] // len(conds)
        if positive == list(range(positive[0], positive[-1] + 1)):
            return Call(slice(positive[0] * batch, (positive[-1] + 1) * batch), sigma)
        return Call([i * batch + j for i in positive for j in range(batch)], sigma)

    def positive(self) -> set:
        """What marks positive prompts: the guider's own names for them, else their number."""
        prompts = getattr(self.guider, "conds", {}).get("positive") or []
        return {prompt["uuid"] for prompt in prompts if "uuid" in prompt} or {0}

    def vectors_like(self, context: Tensor) -> Tensor:
        """The concepts' text vectors on the device and in the type of the prompt's."""
        key = context.device, context.dtype
        if key not in self.vectors:
            self.vectors[key] = next(iter(self.vectors.values())).to(context)
        return self.vectors[key]

    def add(self, call: Call) -> None:
        """Keep the scores of one call, averaged over its positive prompts."""
        stream = call.stream
        if stream is None or not stream.complete:
            self.unseen.add(call.sigma)
            return
        scores = {space: torch.stack(s).unflatten(1, (-1, self.shape[0])).mean(dim=1) for space, s in stream.scores.items()}
        self.recorder.add(call.sigma, scores)

    def close(self, fingerprint: Fingerprint) -> Run:
        """What was recorded, once the run has ended well."""
        recordings = self.recorder.finish()
        notes = [*self.notes, *self.recorder.notes]
        if self.unseen:
            notes.append(f"{len(self.unseen)} of {len(self.unseen.union(self.recorder.steps))} steps are not recorded: there something "
                         "stood in for the model's blocks (a step cache, another node, or ComfyUI's CUDA graphs, which its option "
                         "--disable-cuda-graphs switches off).")
        if not recordings and not notes:
            notes = ["No step of this sampler lay between start_percent and end_percent, or a step cache skipped all of them. "
                     "Widen the window or remove the cache."]
        return Run(fingerprint, recordings, tuple(notes))
