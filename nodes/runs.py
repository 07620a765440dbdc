"""Which recording belongs to which sampled latent."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.recording import SPACES, Recording

KEPT = 4  # runs; enough for two samplers on one model and a comparison with the time before


@dataclass(frozen=True)
class Fingerprint:
    """A few values of a latent; they survive the casts between sampler and node, and differ from any other latent's."""

    shape: tuple[int, ...]
    values: Tensor

    @classmethod
    def of(cls, latent: Tensor) -> Fingerprint:
        flat = latent.detach().flatten()
        picks = torch.linspace(0, flat.numel() - 1, min(256, flat.numel())).long()
        return cls(tuple(latent.shape), flat[picks.to(flat.device)].to("cpu", torch.float32))

    def matches(self, other: Fingerprint) -> bool:
        if self.shape != other.shape:
            return False
        return torch.allclose(self.values, other.values, rtol=0.02, atol=0.02, equal_nan=True)


@dataclass(frozen=True)
class Run:
    """One sampling run: its recordings by space, and what has to be said about it."""

    fingerprint: Fingerprint
    recordings: dict[str, Recording]
    notes: tuple[str, ...] = ()

    def at_size(self, image_size: tuple[int, int]) -> Run:
        """The same for pictures of another size (H, W) than the model was shown."""
        return replace(self, recordings={space: recording.at_size(image_size) for space, recording in self.recordings.items()})


class ConceptRuns:
    """The last few runs of one Concept Attention node: what its `recordings` output carries. Holds CPU tensors only."""

    def __init__(self):
        self._runs: deque[Run] = deque(maxlen=KEPT)

    def keep(self, run: Run) -> None:
        self._runs.append(run)

    def find(self, latent: Tensor | None) -> tuple[Run, list[str]]:
        """The run that made `latent`, else the newest one with a warning. Raises ValueError when nothing was sampled."""
        if not self._runs:
            raise ValueError("Nothing has been sampled with this Concept Attention node yet. Connect its model to a sampler, and "
                             "the sampler's LATENT to 'samples' of Concept Saliency, so that it waits for the sampler.")
        newest = self._runs[-1]
        if latent is None:
            return newest, list(newest.notes)
        wanted = Fingerprint.of(latent)
        for run in reversed(self._runs):
            if run.fingerprint.matches(wanted):
                return run, list(run.notes)
        return newest, [*newest.notes, "The latent in 'samples' does not come straight from a sampler that used this Concept "
                                       "Attention node, so the newest recording is shown."]

    def recording(self, latent: Tensor | None, space: str) -> tuple[Recording, list[str]]:
        """The recording of `find` in one space, and warnings; where the model has no space "output", that of its only one.

        Raises ValueError when the run recorded nothing there.
        """
        run, warnings = self.find(latent)
        if not run.recordings:
            raise ValueError("The sampler ran, but nothing was recorded. " + " ".join(run.notes))
        if space == SPACES[0] and space not in run.recordings:  # the model has none
            return next(iter(run.recordings.values())), warnings
        if space not in run.recordings:
            raise ValueError(f"The space '{space}' was not recorded. Switch on 'cross_attention' in Concept Attention and sample again.")
        return run.recordings[space], warnings
