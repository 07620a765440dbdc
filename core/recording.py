"""Raw scores of one sampling run: collected step by step, kept on the CPU, saved to and loaded from safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from .families import Defaults
from .files import expect_size, expect_words, read_safetensors

SPACES = ("output", "cross-attention")
MAX_BYTES = 1_000_000_000  # a longer run thins its steps evenly
MAX_COMPRESSION = 64
_FORMAT = "concept_saliency.recording.1"
AnyRecording = TypeVar("AnyRecording", bound="Recording")


@dataclass(frozen=True)
class Recording:
    """Scores of every step, layer, picture and concept, from which any saliency map can be computed later.

    scores: S x L x B x C x h x w float32 on the CPU; the C rows are `concepts`, then `contrast`; h x w is
    the token grid. frames: latent frames of a clip; the B pictures are then the frames of one clip after
    another. compression: how many frames of the video a latent frame stands for; the first stands for one.
    sigmas: S noise levels in 0..1. progress: S shares of the run, 0 to 1, at which the steps began, rising.
    layers: L block numbers, of `depth`, the last `singles` of which are single-stream blocks. space: one of
    SPACES. image_size: (H, W) pixels of the picture; seen_size: those the model was shown, where they are
    others; patch: how many of these a token covers, the grid may reach beyond the picture's right and lower
    edge.
    """

    concepts: tuple[str, ...]
    contrast: tuple[str, ...]
    scores: Tensor
    sigmas: tuple[float, ...]
    progress: tuple[float, ...]
    layers: tuple[int, ...]
    depth: int
    space: str
    family: str
    defaults: Defaults
    image_size: tuple[int, int]
    patch: int = 16
    seen_size: tuple[int, int] | None = None
    singles: int = 0
    frames: int = 1
    compression: int = 1

    def __post_init__(self):
        expected = (len(self.sigmas), len(self.layers), None, len(self.concepts) + len(self.contrast), None, None)
        shape = tuple(self.scores.shape)
        if len(shape) != 6 or any(e is not None and e != s for e, s in zip(expected, shape)) or 0 in shape:
            raise ValueError(f"scores have shape {shape}, expected steps x layers x pictures x concepts x height x width "
                             f"= {expected}, none of them zero")
        if self.scores.dtype != torch.float32:
            raise ValueError(f"scores are {self.scores.dtype}, expected torch.float32")
        expect_words("concepts", self.concepts)
        expect_words("contrast", self.contrast, none_too=True)
        expect_size("image_size", self.image_size)
        expect_size("seen_size", self.shown_size)
        for name, values in (("sigmas", self.sigmas), ("progress", self.progress)):
            if len(values) != len(self.sigmas) or not all(type(v) is float and math.isfinite(v) for v in values):
                raise ValueError(f"{name} are {values!r}, expected {len(self.sigmas)} numbers")
        if not all(type(layer) is int for layer in (self.depth, self.singles, self.patch, *self.layers)) or self.patch < 1 or \
                not 0 <= self.singles < self.depth or list(self.layers) != sorted(set(self.layers) & set(range(min(self.depth, 1000)))):
            raise ValueError(f"layers are {self.layers!r} of {self.depth!r} blocks, {self.singles!r} of them single-stream, and a token "
                             f"covers {self.patch!r} pixels, expected whole numbers, layers rising from 0, and another block before "
                             "the single-stream ones")
        if not all(type(number) is int and number > 0 for number in (self.frames, self.compression)) or shape[2] % self.frames or \
                self.compression > MAX_COMPRESSION:
            raise ValueError(f"{shape[2]} pictures are clips of {self.frames!r} latent frames, each of which stands for "
                             f"{self.compression!r} of the video's, expected whole numbers from 1 (to {MAX_COMPRESSION}) and whole clips")
        if self.space not in SPACES:
            raise ValueError(f"space is {self.space!r}, expected one of {', '.join(SPACES)}")
        grid = tuple(math.ceil(side / self.patch) for side in self.shown_size)
        if grid != shape[4:]:
            raise ValueError(f"a picture of {self.shown_size} pixels has {grid} tokens, but scores have {shape[4:]}")

    @property
    def shown_size(self) -> tuple[int, int]:
        """(H, W) pixels that the model was shown."""
        return self.image_size if self.seen_size is None else self.seen_size

    def at_size(self: AnyRecording, image_size: Sequence[int]) -> AnyRecording:
        """The same for the picture at another size (H, W) than the model was shown."""
        shown = self.shown_size
        size = image_size[0], image_size[1]
        return replace(self, image_size=size, seen_size=None if shown == size else shown)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; everything but the scores stands in its metadata as JSON."""
        about = {k: asdict(v) if isinstance(v, Defaults) else v for k, v in vars(self).items() if k != "scores"}
        save_file({"scores": self.scores.contiguous()}, path, metadata={"format": _FORMAT, "recording": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read what `save` wrote. Raises ValueError for a file that is not such a recording or is damaged."""
        tensors, about = read_safetensors(path, _FORMAT, "recording", ("scores",))
        try:
            about["defaults"] = Defaults(**about["defaults"])
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items()}
            return cls(scores=tensors["scores"], **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'{path}' is not a usable recording: {error}") from error


def joined(recordings: list[AnyRecording]) -> AnyRecording:
    """Several recordings of the same pictures as one, their steps side by side."""
    first = recordings[0]
    return replace(first, scores=torch.cat([r.scores for r in recordings]), sigmas=sum((r.sigmas for r in recordings), ()),
                   progress=sum((r.progress for r in recordings), ()))


class Recorder:
    """Collects the scores of one sampling run.

    concepts, contrast: names. schedule: the run's noise levels in their order, with the last one that is
    reached. depth: blocks that are looked at, the last `singles` of them single-stream. Calls at the same
    noise level (several prompts, second-order samplers) are averaged. frames, compression: see Recording.
    """

    def __init__(self, concepts, contrast, family: str, defaults: Defaults, schedule, depth: int,
                 image_size: tuple[int, int], patch: int = 16, max_bytes: int = MAX_BYTES, singles: int = 0,
                 frames: int = 1, compression: int = 1):
        self.about: dict[str, Any] = dict(concepts=tuple(concepts), contrast=tuple(contrast), family=family, defaults=defaults,
                          depth=depth, singles=singles, image_size=tuple(image_size), patch=patch, frames=frames,
                          compression=compression)
        self.schedule = [float(s) for s in schedule]
        self.max_bytes, self.stride = max_bytes, 1
        self.steps: dict[float, list[dict[str, Tensor]]] = {}
        self.notes: list[str] = []

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens that cover the picture."""
        return tuple(math.ceil(side / self.about["patch"]) for side in self.about["image_size"])

    @property
    def default_layers(self) -> list[int]:
        """Those that "auto" means."""
        return self.about["defaults"].layers(self.about["depth"], self.about["singles"])

    def wants(self, sigma: float) -> bool:
        """Whether this noise level is to be recorded; only a run beyond `max_bytes` leaves steps out."""
        return round(self.progress(sigma) * (len(self.schedule) - 1)) % self.stride == 0

    def progress(self, sigma: float) -> float:
        """The share of the run, 0 to 1, at which this noise level is reached."""
        levels, shares = np.array(self.schedule), np.linspace(0, 1, len(self.schedule))
        rising = np.argsort(levels, kind="stable")  # from picture to noise, as in unsampling, they rise already
        return float(np.interp(sigma, levels[rising], shares[rising]))

    def add(self, sigma: float, scores: dict[str, Tensor]) -> None:
        """Keep the scores of one model call: space -> L x clips x C x N, on any device; copied to the CPU without waiting for it.

        The N tokens are those of one frame after another.
        """
        self.steps.setdefault(sigma, []).append({space: to_host(s.detach().float()) for space, s in scores.items()})
        if len(self.steps) == 1 and self.stride == 1:  # of the first step, whose size tells that of all
            steps = max(1, len(self.schedule) - 1)
            size = sum(s.numel() * 4 for s in scores.values())
            if size * steps > self.max_bytes:
                self.stride = math.ceil(steps / max(1, self.max_bytes // size))
                self.notes.append(f"Recording all {steps} steps would take {size * steps / 1e9:.1f} GB; "
                                  f"one step in {self.stride} is recorded instead.")

    def finish(self, layers: Sequence[int] | None = None) -> dict[str, Recording]:
        """The recordings of the run, one a space. layers: of these alone, all if not given. Empty when no step was seen."""
        return self.recordings(sorted(self.steps, key=self.progress), layers)

    def recordings(self, sigmas: Sequence[float], layers: Sequence[int] | None = None) -> dict[str, Recording]:
        """The same of some noise levels that have been seen, in the order of the run; waits until their scores have arrived."""
        if not sigmas:
            return {}
        if torch.cuda.is_initialized():
            for device in range(torch.cuda.device_count()):
                torch.cuda.synchronize(device)  # the copies of `to_host` have arrived
        recordings, rows = {}, slice(None) if layers is None else list(layers)
        for space, first in self.steps[sigmas[0]][0].items():
            depth, clips, words, _ = first[rows].shape
            scores = torch.zeros(len(sigmas), depth, clips, self.about["frames"], words, *self.grid)
            for mean, calls in zip(scores, (self.steps[sigma] for sigma in sigmas)):
                for call in calls:
                    mean.add_(call[space][rows].unflatten(-1, (self.about["frames"], *self.grid)).movedim(3, 2), alpha=1 / len(calls))
            recordings[space] = Recording(scores=scores.flatten(2, 3), sigmas=tuple(sigmas), progress=tuple(map(self.progress, sigmas)),
                                          layers=tuple(range(depth) if layers is None else layers), space=space, **self.about)
        return recordings


def to_host(scores: Tensor) -> Tensor:
    """A copy in host memory; from a CUDA device it is still on its way when this returns."""
    if scores.device.type != "cuda":
        return scores.cpu()
    return torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True).copy_(scores, non_blocking=True)


def padded(pictures: Tensor, patch: int = 16) -> Tensor:
    """Pictures B x C x H x W, continued to the right and below until tokens of `patch` pixels cover them exactly.

    Autoencoders would crop them instead, and maps would no longer line up.
    """
    height, width = pictures.shape[2:]
    return pad(pictures, (0, -width % patch, 0, -height % patch), mode="replicate")
