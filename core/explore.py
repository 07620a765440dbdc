"""What the explorer in the browser reads: maps in few bits on the token grid, in one small safetensors file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from .recording import Recording
from .render import heatmaps
from .saliency import Saliency, saliency

MAX_BYTES = 2_000_000  # of a file's maps


def as_levels(maps: Tensor, bits: int) -> np.ndarray:
    """Maps in 0..1 as whole numbers of 8 or 16 bits: uint8 or uint16 of the same shape, 0 is 0 and the largest is 1."""
    top = 2**bits - 1
    return (maps.double().clamp(0, 1) * top).round().numpy().astype(np.uint8 if bits == 8 else np.uint16)


def single_steps(recording: Recording, most: int) -> list[Recording]:
    """Recordings of one step each, at most so many, evenly from the first to the last; steps in which the model computed NaN are left out."""
    finite = [i for i, scores in enumerate(recording.scores) if torch.isfinite(scores).all()]
    picked = np.unique(np.linspace(0, len(finite) - 1, min(most, len(finite))).round().astype(int)) if finite and most > 0 else []
    return [replace(recording, scores=recording.scores[i:i + 1], sigmas=(recording.sigmas[i],), progress=(recording.progress[i],))
            for i in (finite[p] for p in picked)]


def save(path: str | Path, shown: Saliency, bits: int = 8, recording: Recording | None = None, layers: str = "auto",
         temperature: float = 0.0) -> int:
    """Write a safetensors file; returns how many of the pictures are in it, which may be fewer where all do not fit into MAX_BYTES.

    Tensors: `maps` M x B x R x h x w, as_levels of the shares of the R concepts and contrast concepts on the token grid, the first of
    M those of `shown`, the others those of the recording's single steps, as many as fit; `presence` B x C float32; `colours` 256 x 3
    uint8. Metadata "explorer", JSON: concepts, contrast, image_size, extent (see Saliency), progress of each single step.
    layers, temperature: see core.saliency.saliency. Writes no file and returns 0 where not even one picture fits.
    """
    first = rows(shown)
    size = first[0].numel() * bits // 8
    pictures = min(len(first), MAX_BYTES // size)
    if not pictures:
        return 0
    steps = [] if recording is None else single_steps(recording, MAX_BYTES // (size * pictures) - 1)
    moments = [first, *(rows(saliency(step, layers, temperature=temperature)) for step in steps)]
    about = {"concepts": shown.concepts, "contrast": shown.contrast, "image_size": shown.image_size, "extent": shown.extent,
             "progress": [step.progress[0] for step in steps]}
    tensors = {"maps": as_levels(torch.stack([maps[:pictures] for maps in moments]), bits),
               "presence": shown.presence[:pictures].contiguous().numpy(), "colours": as_levels(heatmaps(torch.linspace(0, 1, 256)), 8)}
    save_file(tensors, path, metadata={"explorer": json.dumps(about)})
    return pictures


def rows(shown: Saliency) -> Tensor:
    """The maps of the concepts and, after them, of the contrast concepts: B x R x h x w."""
    return torch.cat((shown.maps, shown.contrast_maps), dim=1)
