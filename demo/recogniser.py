"""Which things are where in a picture of the tiny world: what drawings are judged by.

A small network that was trained on the world's own scenes and masks alone, never on what the tiny
Flux draws (train_recogniser.py), and a ruler: a thing is whole if its outline is that of the thing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle

from .world import THINGS, outline

FILE = Path(__file__).parent / "recogniser.safetensors"
CLASSES = ("", *THINGS)  # the ground, then the things
LEAST = 0.005  # share of the picture that a thing takes at least
WHOLE = 0.7  # IoU with the thing's own outline, in the same box


def _layer(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A 5 x 5 convolution of each channel, then one over the channels."""
    return nn.Sequential(nn.Conv2d(before, before, 5, stride, 2 * dilation, dilation, groups=before, bias=False),
                         nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Recogniser(nn.Module):
    """Pictures B x 3 x H x W in 0..1 (sides multiples of 16) -> scores of CLASSES, B x 17 x H/4 x W/4."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(12, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.halved = nn.Sequential(_layer(32, 48, stride=2), _layer(48, 48))
        self.quartered = nn.Sequential(_layer(48, 64, stride=2), _layer(64, 64), _layer(64, 64, dilation=2))
        self.to_half, self.to_full = nn.Conv2d(64, 48, 1), nn.Conv2d(48, 32, 1)
        self.on_half, self.on_full = _layer(48, 48), _layer(32, 32)
        self.head = nn.Conv2d(32, len(CLASSES), 1)

    def forward(self, pictures: Tensor) -> Tensor:
        full = self.stem(pixel_unshuffle(nn.functional.avg_pool2d(pictures, 2) - 0.5, 2))
        half = self.halved(full)
        half = self.on_half(half + interpolate(self.to_half(self.quartered(half)), scale_factor=2, mode="bilinear"))
        return self.head(self.on_full(full + interpolate(self.to_full(half), scale_factor=2, mode="bilinear")))


def load_recogniser(path: Path = FILE) -> Recogniser:
    """The trained network, in float32, ready for inference."""
    recogniser = Recogniser()
    recogniser.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return recogniser.eval().requires_grad_(False)


@torch.no_grad()
def read(recogniser: Recogniser, pictures: Tensor) -> Tensor:
    """The class of every pixel, B x H x W int64: 0 for the ground, i + 1 for the i-th of THINGS."""
    return interpolate(recogniser(pictures), size=pictures.shape[-2:], mode="bilinear").argmax(dim=1)


def things_in(labels: Tensor) -> set[str]:
    """The things that take more than LEAST of a picture H x W of classes."""
    shares = torch.bincount(labels.flatten(), minlength=len(CLASSES)) / labels.numel()
    return {thing for thing, share in zip(CLASSES[1:], shares[1:].tolist()) if share >= LEAST}


def is_whole(labels: Tensor, thing: str) -> bool:
    """Whether all that is read as `thing` has its outline, mirrored or not: IoU of at least WHOLE in one box.

    Loose parts, blots of the right colour and two of a kind fail.
    """
    mask = Image.fromarray((labels == CLASSES.index(thing)).numpy())
    if mask.getbbox() is None:
        return False
    own = outline(thing)
    found = np.asarray(mask.crop(mask.getbbox()).resize(own.shape[::-1], Image.Resampling.NEAREST))
    return max((found & o).sum() / (found | o).sum() for o in (own, own[:, ::-1])) >= WHOLE
