"""Reading files that anybody may have written: what they hold is expected to be as said, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MAX_SIDE = 2**16  # pixels


def read_safetensors(path: str | Path, kind: str, key: str, names: tuple[str, ...]) -> tuple[dict[str, Tensor], dict]:
    """Tensors `names` and the JSON under metadata `key` of a safetensors file of that `kind`; ValueError otherwise."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise ValueError(f"'{path}' has the format {metadata.get('format')!r}, expected {kind!r}. "
                                 "Choose a file that Concept Saliency saved.")
            tensors = {name: file.get_tensor(name) for name in names}
        about = json.loads(metadata[key])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path}' cannot be read as safetensors: {error}. It may be truncated; save it again.") from error
    if not isinstance(about, dict):
        raise ValueError(f"'{path}' is damaged: its metadata '{key}' is no JSON object")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise ValueError(f"'{path}' is damaged: '{name}' holds values that are not finite")
    return tensors, about


def expect_words(name: str, words, none_too: bool = False) -> None:
    """Raise ValueError for anything but a tuple of words; an empty one only where `none_too`."""
    if not isinstance(words, tuple) or not all(isinstance(word, str) and word.strip() for word in words) or not (words or none_too):
        raise ValueError(f"{name} are {words!r}, expected words")


def expect_size(name: str, size) -> None:
    """Raise ValueError for anything but a height and a width in pixels."""
    if not isinstance(size, tuple) or len(size) != 2 or not all(type(side) is int and 0 < side <= MAX_SIDE for side in size):
        raise ValueError(f"{name} is {size!r}, expected height and width from 1 to {MAX_SIDE} pixels")
