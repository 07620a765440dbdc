"""The paper's protocol: what a model's maps are worth on a data set, for many settings at once."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import Iterable, NamedTuple, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..core.metrics import ClassMetrics, SegmentationMetrics
from ..core.saliency import Saliency, saliency
from .datasets import DataSet, Sample
from .models import Model

Metrics = SegmentationMetrics | ClassMetrics


class Setting(NamedTuple):
    """One way to make maps. layers, temperature: as core/saliency.py takes them. self_attention: among concepts."""

    noise_level: float
    space: str
    layers: str
    temperature: float
    self_attention: bool = True

    @property
    def key(self) -> str:
        return " ".join(map(str, self[:4])) + ("" if self.self_attention else " without-self-attention")


def measure(model: Model, data: DataSet, picks: Sequence[int], settings: Iterable[Setting], contrast: str, samples: int = 1,
            label: str = "measuring") -> dict[Setting, Metrics]:
    """Metrics of every setting over the samples `picks` of a data set.

    As the authors' experiments do it: pictures and labels are resized by nearest neighbour, the picture to what
    the model draws (1024 x 1024 for Flux; the tiny world is left as it is), the labels to data.label_size. The
    prompt is "a <target>", the target competes with the contrast concepts in one pass, or `samples` passes with
    different noise. Where the data set asks for its targets together, the prompt names them all, they
    compete with one another too, and the strongest concept wins a patch. Two differences: pixels
    marked as not counted are left out, and PascalVOC's single-class pictures do not take the detour over 512 x 512.
    """
    settings = list(settings)
    metrics: dict[Setting, Metrics] = {s: ClassMetrics() if data.together else SegmentationMetrics() for s in settings}
    passes = sorted(settings, key=one_pass)
    for pick in tqdm(picks, desc=label, unit="picture", file=sys.stderr):
        sample = data[pick]
        image, labels = prepared(sample, model, data)
        for (level, self_attention), group in groupby(passes, key=one_pass):
            group = list(group)
            for targets in [sample.targets] if data.together else [(t,) for t in sample.targets]:
                found = look(model, image, targets, group, contrast, sample.seed, samples, level, self_attention)
                for setting, result in found.items():
                    if data.together:
                        metrics[setting].add(torch.cat((result.maps, result.contrast_maps), dim=1)[0], labels, targets)
                    else:
                        number = sample.targets.index(targets[0]) + 1
                        metrics[setting].add(result.maps[0, 0], labels == number, labels >= 0)
    return metrics


def one_pass(setting: Setting) -> tuple[float, bool]:
    """Settings that are alike in this are read off the same pass."""
    return setting.noise_level, setting.self_attention


def look(model: Model, image: Tensor, targets: Sequence[str], settings: Iterable[Setting], contrast: str, seed: int, samples: int,
         level: float, self_attention: bool) -> dict[Setting, Saliency]:
    """The maps of `targets` in a picture 1 x 3 x H x W, for settings that are alike in noise level and self-attention."""
    recordings = model.record(image, ", ".join(targets), contrast, [",".join(f"a {target}" for target in targets)], level,
                              range(seed, seed + samples), cross_attention=True, self_attention=self_attention)
    return {s: saliency(recordings[s.space], s.layers, temperature=s.temperature) for s in settings}


def prepared(sample: Sample, model: Model, data: DataSet) -> tuple[Tensor, Tensor]:
    """The picture 1 x 3 x H x W in 0..1 and the labels H' x W' int64, at the sizes of the protocol."""
    image, labels = sample.image, sample.labels
    if data.label_size is not None:
        image = resized(image, model.size)
        labels = resized(labels, data.label_size)
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255, torch.from_numpy(labels.astype(np.int64))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H x W x 3 uint8 or H x W int16 at `size` (H, W), by nearest neighbour as the authors' transforms do it."""
    if picture.ndim == 3:
        return np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.NEAREST))
    return np.array(Image.fromarray(picture.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)).astype(picture.dtype)
