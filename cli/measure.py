"""What a model's maps are worth on a data set, by either protocol (see cli/protocols.py), for many settings at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from ..core.metrics import SegmentationMetrics, ThingMetrics
from ..core.recording import Recording
from ..core.saliency import parse_layers, saliency
from .datasets import DataSet, Sample, resized
from .models import Model
from .protocols import OURS, Metrics, Rules


class Measured(NamedTuple):
    """What was measured of one setting: the paper's figures over all pictures together, and thing by thing."""

    pooled: Metrics
    things: ThingMetrics


class Setting(NamedTuple):
    """One way to make maps. layers, temperature: as core/saliency.py takes them. self_attention: among concepts.
    blurred: whether the maps are, by 3 x 3 tokens."""

    noise_level: float
    space: str
    layers: str
    temperature: float
    self_attention: bool = True
    blurred: bool = False

    @property
    def key(self) -> str:
        more = [text for text, said in (("without-self-attention", not self.self_attention), ("blurred", self.blurred)) if said]
        return " ".join([*map(str, self[:4]), *more])


def measure(model: Model, data: DataSet, picks: Sequence[int], settings: Iterable[Setting], contrast: str, rules: Rules = OURS,
            samples: int = 1, label: str = "measuring", things: bool = True) -> dict[Setting, Measured]:
    """The metrics of every setting over the samples `picks` of a data set; see core/metrics.py.

    Pictures and labels are resized as `rules` say (the tiny world is left as it is), the picture to what the model draws
    (1024 x 1024 for Flux), the labels to data.label_size. The prompt is "a <target>", the target competes with the contrast
    concepts in one pass, or `samples` passes with different noise. Where the data set asks for its targets together, the
    prompt names them all, they compete with one another too, and the strongest concept wins a patch. things: whether they are
    measured one by one, too.
    """
    settings = list(settings)
    metrics = {s: Measured(rules.metrics(), ThingMetrics()) for s in settings}
    passes = sorted(settings, key=one_pass)
    for pick in tqdm(picks, desc=label, unit="picture", file=sys.stderr):
        sample = data[pick]
        image, labels = prepared(sample, model, data, rules)
        for (level, self_attention), alike in groupby(passes, key=one_pass):
            group = list(alike)
            looks = [sample.targets] if data.together else [(t,) for t in sample.targets]
            found: dict[Setting, list[Tensor]] = {s: [] for s in group}
            for targets in looks:
                recordings = look(model, image, targets, contrast, sample.seed, samples, level, self_attention, rules) if targets else {}
                for s in group:
                    found[s].append(maps_of(recordings[s.space], s, rules.linear) if targets else torch.zeros(1, 1, 1))
            for s in group:
                score(metrics[s], found[s], labels, sample, things)
    return metrics


def score(measured: Measured, found: list[Tensor], labels: Tensor, sample: Sample, things: bool) -> None:
    """Add one picture. found: maps C x h x w of targets and their rivals: of one target each where the figures are of one plane,
    else of all at once."""
    count, counted = len(sample.targets), labels >= 0
    if isinstance(measured.pooled, SegmentationMetrics):
        maps = [one[0] for one in found]
        for i, one in enumerate(maps, 1):
            measured.pooled.add(one, labels == i, counted)
        masks = [one > one.mean() for one in maps]
    else:
        measured.pooled.add(found[0], labels, sample.numbers)
        masks = [found[0].argmax(dim=0) == i for i in range(count)]
        maps = list(found[0][:count])
    if things:
        measured.things.add(((masks[i], maps[i], labels == i + 1) for i in range(count)), counted)


def one_pass(setting: Setting) -> tuple[float, bool]:
    """Settings that are alike in this are read off the same pass."""
    return setting.noise_level, setting.self_attention


def look(model: Model, image: Tensor, targets: Sequence[str], contrast: str, seed: int, samples: int, level: float,
         self_attention: bool, rules: Rules) -> dict[str, Recording]:
    """Recordings, by space, of `targets` in a picture 1 x 3 x H x W."""
    first = seed + rules.seed
    return model.record(image, ", ".join(targets), contrast, [",".join(f"a {target}" for target in targets)], level,
                        range(first, first + samples), rules.token, cross_attention=True, self_attention=self_attention,
                        linear=rules.linear, pooled_prompt=rules.pooled_prompt, guidance=rules.guidance)


def maps_of(recording: Recording, setting: Setting, linear: bool) -> Tensor:
    """The maps C x h x w of the one picture in a recording, concepts first, then their rivals.

    linear: the scores are those of core.stream.linear_shares; they are summed over layers and passes.
    """
    if linear:
        rows = parse_layers(setting.layers, recording.layers, recording.defaults.layers(recording.depth, recording.singles))
        maps = recording.scores[:, rows, 0].sum(dim=(0, 1))
    else:
        result = saliency(recording, setting.layers, temperature=setting.temperature)
        maps = torch.cat((result.maps, result.contrast_maps), dim=1)[0]
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(maps[None], (3, 3), (1.0, 1.0))[0] if setting.blurred else maps


def prepared(sample: Sample, model: Model, data: DataSet, rules: Rules) -> tuple[Tensor, Tensor]:
    """The picture 1 x 3 x H x W in 0..1 and the labels H' x W' int64, at the sizes of the protocol."""
    image, labels = sample.image, sample.labels
    if rules.through:
        side, how = rules.through
        image = resized(image, (side, side), how)
    elif data.label_size is not None:
        image = resized(image, model.size)
    if data.label_size is not None:
        labels = resized(labels, data.label_size)
    shown = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    if rules.through:
        shown = interpolate(shown, size=model.size, mode="nearest")
    return shown, torch.from_numpy(labels.astype(np.int64))
