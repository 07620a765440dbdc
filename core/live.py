"""Saliency of a sampling run while it lasts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .recording import Recorder, Recording
from .saliency import Saliency, presence, saliency


class LiveSaliency:
    """What core.saliency.saliency makes of a run's steps so far, of its first picture; of a video of the frame in its middle.

    Each step is looked at once, and not kept.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.looked_at, self.counted = 0, 0  # steps; and those of them that are in the mean
        self.mean = torch.zeros(())

    def newest(self) -> Saliency | None:
        """Saliency of all steps recorded by now, its contrast maps those of the last; waits for the device. None where no step is new, or
        where the model computes NaN."""
        shown = None
        for sigma in list(self.recorder.steps)[self.looked_at:]:
            self.looked_at += 1
            found = self.recorder.recordings([sigma], self.recorder.default_layers)
            step = next(iter(found.values()))  # "output", where the model has it
            step = replace(step, scores=step.scores[:, :, step.frames // 2, None], frames=1)
            shown = self.with_step(step) if torch.isfinite(step.scores).all() else None
        return shown

    def with_step(self, step: Recording) -> Saliency:
        """The mean with one step more: of maps, or of scores where the family's softmax comes last."""
        if not step.defaults.softmax_first:
            return saliency(replace(step, scores=self.in_mean(step.scores, step)))
        alone = saliency(step)
        maps = self.in_mean(alone.maps, step)
        return replace(alone, maps=maps, presence=presence(maps))

    def in_mean(self, values: Tensor, step: Recording) -> Tensor:
        """Before the first step that counts by default each stands alone, as in `saliency`."""
        (progress,) = step.progress
        if progress >= step.defaults.first_step:
            self.counted += 1
            self.mean = torch.lerp(self.mean, values, 1 / self.counted)
        return self.mean if self.counted else values
