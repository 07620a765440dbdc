"""Recording -> saliency maps and presence, for any choice of layers, steps and temperature."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

from .concepts import row_of
from .files import expect_size, expect_words, read_safetensors
from .recording import Recording

_FORMAT = "concept_saliency.saliency.1"


@dataclass(frozen=True)
class Saliency:
    """Where each concept is seen.

    maps: B x C x h x w float32 in 0..1 on the token grid, the share of each concept against all its
    rivals. contrast_maps: B x K x h x w, the same for the contrast concepts that are not shown.
    presence: B x C in 0..1, how surely the concept is in the picture at all. image_size: (H, W) pixels.
    extent: (H, W) pixels that the grid covers; it may reach beyond the picture. frames: of a clip, as many as
    its video has; the B pictures are then the frames of one clip after another, and a clip's presence is that
    of its surest frame.
    """

    concepts: tuple[str, ...]
    maps: Tensor
    image_size: tuple[int, int]
    extent: tuple[int, int]
    presence: Tensor
    contrast: tuple[str, ...]
    contrast_maps: Tensor
    frames: int = 1

    def __post_init__(self):
        expect_words("concepts", self.concepts)
        expect_words("contrast", self.contrast, none_too=True)
        expect_size("image_size", self.image_size)
        expect_size("extent", self.extent)
        if any(outer < inner for outer, inner in zip(self.extent, self.image_size)):
            raise ValueError(f"extent is {self.extent}, less than image_size {self.image_size}")
        batch, grid = self.maps.shape[0] if self.maps.ndim else 0, tuple(self.maps.shape[2:])
        for name, tensor, shape in (("maps", self.maps, (batch, len(self.concepts), *grid)),
                                    ("contrast_maps", self.contrast_maps, (batch, len(self.contrast), *grid)),
                                    ("presence", self.presence, (batch, len(self.concepts)))):
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise ValueError(f"{name} have shape {tuple(tensor.shape)} and type {tensor.dtype}, expected {shape} and torch.float32")
            if tensor.numel() and not (float(tensor.min()) >= -1e-4 and float(tensor.max()) <= 1 + 1e-4):
                raise ValueError(f"{name} reach from {float(tensor.min()):g} to {float(tensor.max()):g}, expected 0 to 1")
        if len(grid) != 2 or 0 in grid or not batch:
            raise ValueError(f"maps have shape {tuple(self.maps.shape)}, expected pictures x concepts x height x width, none of them zero")
        if type(self.frames) is not int or self.frames < 1 or batch % self.frames:
            raise ValueError(f"{batch} pictures are clips of {self.frames!r} frames, expected a whole number from 1 and whole clips")

    def index(self, concept: str) -> int:
        """The row of a concept; see core.concepts.row_of."""
        return row_of(concept, self.concepts)

    @property
    def counted(self) -> str:
        """How many pictures there are, for messages."""
        return str(len(self.maps)) if self.frames == 1 else f"{len(self.maps)} ({self.frames} frames a clip)"

    def at_size(self, image_size: tuple[int, int]) -> Saliency:
        """The same maps for the same picture at another size (H, W), enlarged or reduced as a whole."""
        height, width = (round(e * new / old) for e, new, old in zip(self.extent, image_size, self.image_size))
        return replace(self, image_size=(image_size[0], image_size[1]), extent=(height, width))

    def pixels(self, maps: Tensor) -> Tensor:
        """Maps B x C x h x w on the token grid -> B x C x H x W on the picture's pixels, bilinear."""
        height, width = self.image_size
        return interpolate(maps, size=self.extent, mode="bilinear", align_corners=False)[..., :height, :width].clamp_(0, 1)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        about = {"concepts": self.concepts, "image_size": self.image_size, "extent": self.extent, "contrast": self.contrast,
                 "frames": self.frames}
        tensors = {"maps": self.maps, "presence": self.presence, "contrast_maps": self.contrast_maps}
        save_file({k: v.contiguous() for k, v in tensors.items()}, path,
                  metadata={"format": _FORMAT, "saliency": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Saliency:
        """Read what `save` wrote. Raises ValueError for any other file or a damaged one."""
        tensors, about = read_safetensors(path, _FORMAT, "saliency", ("maps", "presence", "contrast_maps"))
        try:
            stored: dict[str, Any] = dict(tensors)
            words: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items()}
            return cls(**stored, **words)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{path}' is not a usable saliency file: {error}") from error


def saliency(recording: Recording, layers: str = "auto", start: float = 0.0, end: float = 1.0,
             temperature: float = 0.0) -> Saliency:
    """Saliency maps of a recording (paper, section 4.2).

    layers: see parse_layers. start, end: share of the run, 0 to 1, whose steps count; the whole run
    means the family's default window. temperature: divides the scores before the softmax over
    concepts, 0 for the family's own. Of a clip, every frame of the video has the maps of the latent frame that
    stands for it. Raises ValueError when no layer or step is left.
    """
    defaults = recording.defaults
    rows = parse_layers(layers, recording.layers, defaults.layers(recording.depth, recording.singles))
    if (start, end) == (0.0, 1.0):
        start = min(defaults.first_step, max(recording.progress))
    steps = [i for i, p in enumerate(recording.progress) if start <= p <= end]
    if not steps:
        seen = ", ".join(f"{p:.2f}" for p in recording.progress)
        raise ValueError(f"No recorded step lies between {start:g} and {end:g}, the start and the end that were asked for. "
                         f"Recorded steps began at: {seen}.")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature:g}, expected 0 (the model's own) or more")
    clips = recording.scores.shape[2] // recording.frames
    chosen = torch.tensor(steps)[:, None], rows  # both at once: nothing is copied that is not used
    maps = torch.cat([averaged(part[chosen], temperature or defaults.temperature, defaults.softmax_first)
                      for part in recording.scores.split(clips, dim=2)])  # a video's frames one by one: they are large
    count = len(recording.concepts)
    extent = maps.shape[-2] * recording.patch, maps.shape[-1] * recording.patch
    stands_for = torch.tensor([1, *[recording.compression] * (recording.frames - 1)])
    maps = maps.unflatten(0, (clips, recording.frames)).repeat_interleave(stands_for, dim=1).flatten(0, 1)
    shown = Saliency(recording.concepts, maps[:, :count], recording.shown_size, extent, presence(maps[:, :count]),
                     recording.contrast, maps[:, count:], int(stands_for.sum()))
    return shown.at_size(recording.image_size)


def averaged(scores: Tensor, temperature: float, softmax_first: bool) -> Tensor:
    """Scores S x L x B x C x h x w -> maps B x C x h x w: softmax over concepts, mean over steps and layers.

    Raises ValueError where scores are not finite.
    """
    if not torch.isfinite(scores).all():
        raise ValueError("The model's own numbers are not finite here: it has computed NaN, as when a picture comes out black in float16. "
                         "Sample in bfloat16 or float32, or leave out what causes it.")
    scores = scores / temperature
    if softmax_first:
        return scores.softmax(dim=3).mean(dim=(0, 1))
    return scores.mean(dim=(0, 1)).softmax(dim=1)


def presence(maps: Tensor) -> Tensor:
    """How surely each concept is in the picture: mean of the strongest 2% of its map, B x C x h x w -> B x C."""
    flat = maps.flatten(2)
    return flat.topk(max(1, round(flat.shape[-1] * 0.02)), dim=-1).values.mean(dim=-1)


def parse_layers(text: str, available: Sequence[int], default: Sequence[int]) -> list[int]:
    """Positions in `available` of the layers named: "auto", "all", "15-18", "3,7", "-4:" (the last four).

    Raises ValueError for anything else and for layers that were not recorded.
    """
    last = max(available)
    help_text = f"This model's layers are 0 to {last}. Write for example: auto, all, {max(0, last - 3)}-{last}, 0,{last} or -4:"
    wanted: list[int] = []
    for part in (p.strip() for p in text.strip().lower().split(",")):
        if part == "auto":
            wanted += default
        elif part == "all":
            wanted += available
        elif match := re.fullmatch(r"(\d{1,6})\s*-\s*(\d{1,6})", part):
            first, final = map(int, match.groups())
            if first > final:
                raise ValueError(f"layers '{text}': the range {part} runs backwards. {help_text}")
            wanted += range(first, min(final, last + 1) + 1)
        elif match := re.fullmatch(r"(-?\d{1,6})?\s*:\s*(-?\d{1,6})?", part):
            wanted += list(available)[slice(*(int(g) if g else None for g in match.groups()))]
        elif re.fullmatch(r"-?\d{1,6}", part):
            wanted.append(int(part) if int(part) >= 0 else last + 1 + int(part))
        else:
            raise ValueError(f"layers '{text}' cannot be read. {help_text}")
    missing = sorted({layer for layer in wanted if layer not in available})
    if missing or not wanted:
        raise ValueError(f"layers '{text}' ask for {missing or 'none'}. {help_text}")
    return [list(available).index(layer) for layer in sorted(set(wanted))]
