"""What the explorer in the browser reads: maps on the token grid, in one small safetensors file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from .recording import Recording
from .render import heatmaps, previewed
from .saliency import Saliency, saliency

MAX_BYTES = 2_000_000  # of a file's maps


def as_levels(maps: Tensor) -> np.ndarray:
    """Values in 0..1 in 8 bits, as they are painted: uint8 of the same shape."""
    return (maps.clamp(0, 1) * 255).round().numpy().astype(np.uint8)


def single_steps(recording: Recording, most: int) -> list[Recording]:
    """Recordings of one step each, at most so many, evenly from the first to the last, without those in which the model computed NaN."""
    finite = recording.scores.flatten(1).sum(dim=1).isfinite().nonzero().flatten().tolist()
    picked = np.linspace(0, len(finite) - 1, max(0, min(most, len(finite)))).round().astype(int)
    return [replace(recording, scores=recording.scores[i:i + 1], sigmas=(recording.sigmas[i],), progress=(recording.progress[i],))
            for i in (finite[p] for p in np.unique(picked))]


def save(path: str | Path, shown: Saliency, exact: bool = False, recording: Recording | None = None, layers: str = "auto",
         temperature: float = 0.0) -> list[int]:
    """Write a safetensors file; returns the numbers of the pictures in it: those that are previewed, or as many as fit into MAX_BYTES.

    Tensors: `maps` M x B x R x h x w, the shares of the R concepts and contrast concepts on the token grid, the first of M those of
    `shown`, the others those of the recording's single steps, as many as fit; `presence` B x C float32; `colours` 256 x 3 uint8.
    Beside maps in 8 bits, `rest` B x R x h x w uint8: what rounding took from the first of M, in 1/255 of a level, 128 for nothing;
    for an overlay shows the root of a share, and so faint ones too. Metadata "explorer", JSON: concepts, contrast, image_size, extent
    (see Saliency), progress of each single step. exact: maps are float32, to make masks from, else uint8, to look at. layers,
    temperature: see core.saliency.saliency. Writes no file and returns none where not even one picture fits.
    """
    chosen = previewed(shown)
    first = rows(shown)[chosen]
    shares = first.shape[1:].numel()
    size, planes = (4 * shares, 1) if exact else (shares, 2)  # bytes of one moment; how many the first one takes
    pictures = min(len(first), MAX_BYTES // (size * planes))
    if not pictures:
        return []
    chosen = chosen[:pictures]
    steps = [] if recording is None else single_steps(recording, MAX_BYTES // (size * pictures) - planes)
    moments = [first[:pictures], *(rows(saliency(step, layers, temperature=temperature))[chosen] for step in steps)]
    about = {"concepts": shown.concepts, "contrast": shown.contrast, "image_size": shown.image_size, "extent": shown.extent,
             "progress": [share for step in steps for share in step.progress]}
    maps = torch.stack(moments)
    tensors = {"maps": maps.numpy() if exact else as_levels(maps), "presence": shown.presence[chosen].contiguous().numpy(),
               "colours": as_levels(heatmaps(torch.linspace(0, 1, 256)))}
    if not exact:
        levels = maps[0].clamp(0, 1) * 255
        tensors["rest"] = ((levels - levels.round()) * 255 + 128).round().clamp(max=255).numpy().astype(np.uint8)
    save_file(tensors, path, metadata={"explorer": json.dumps(about)})
    return chosen


def rows(shown: Saliency) -> Tensor:
    """The maps of the concepts and, after them, of the contrast concepts: B x R x h x w."""
    return torch.cat((shown.maps, shown.contrast_maps), dim=1)
