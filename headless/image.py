"""Where Flux sees concepts in a picture that already exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..core import pictures
from ..core.concepts import DEFAULT_CONTRAST, ConceptInputs
from ..core.recording import SPACES, joined, padded
from ..core.saliency import Saliency
from . import compiled
    watch = Capture(transformer, inputs, image_size=image_size)
    handles = [block.register_forward_pre_hook(tick) for block in watch.family.blocks(transformer)]
