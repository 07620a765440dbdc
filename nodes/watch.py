"""Where a model's attention over text and picture is met, block by block, whatever its family and whoever else is in the chain.

ComfyUI lets blocks be replaced in some families, tells their numbers in others, and tells nothing in the rest.
Source: comfy/ldm (patches_replace, patches, block_index, optimized_attention_override); the families' own: core/families.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import compiled

NEXT = -1  # the number of a block that nothing tells


class Place(NamedTuple):
    """Which attention it is. index: of its block. pe: RoPE of its tokens. first, end: the picture's own tokens among them, counted from
    the last where negative."""

    index: int
    pe: Tensor | None
    first: int
    end: int


class Watch:
    """Has `meet` stand in for the attention of every block that is watched, during one call of a transformer.

    family: a naming, see core/families. meet(place, override, function, q, k, v, heads, ...): gives what the host's `function`, or the
    `override` that was there before, gives of the same. singles: see core.families.naming. turn: which attention of a block it is
    where the picture attends to itself (1) and to its text (2) apart.
    """

    def __init__(self, family, meet: Callable, singles: int | None = None, turn: int = 1):
        self.family, self.meet, self.singles = family, meet, singles
        self.turn = turn if getattr(family, "KEYS_ONLY", False) else None
        self.bare = getattr(family, "BARE", False)  # calls of the transformer cannot be wrapped
        self.order: tuple[str, ...] = ()  # of what the transformer is called with

    def prepare(self, guider) -> torch.nn.Module:
        """Before a run: whether the guider's model can be watched, else ValueError; its transformer."""
        compiled.check(guider.model_options, self.bare)
        transformer = compiled.original(guider.model_patcher.get_model_object("diffusion_model"))
        called = getattr(type(transformer), "_forward", type(transformer).forward)  # what the wrappers stand around
        self.order = tuple(inspect.signature(called).parameters)[1:]
        return transformer

    def given(self, args: tuple, kwargs: dict) -> dict:
        """What the transformer is called with, by name."""
        return {**dict(zip(self.order, args)), **kwargs}

    def call(self, executor, given: dict, positional: int):
        """A call of the transformer within its wrapper, watched; so many of what is given as it was, without their names."""
        given["transformer_options"] = self.options(executor.class_obj, given.get("transformer_options") or {}, given["x"])
        return executor(*[given.pop(name) for name in self.order[:positional]], **given)

    def options(self, transformer, options: dict, x: Tensor) -> dict:
        """transformer_options in which every block is watched: by a replacement, or, where ComfyUI lets none be replaced, by its number,
        or, where it tells none, by the order in which attentions over text and picture come."""
        image_tokens = math.prod((*x.shape[2:-2], *(math.ceil(side / self.family.PATCH) for side in x.shape[-2:])))
        seen: dict = {}
        override = options.get("optimized_attention_override")
        if self.bare:
            return {**options, "optimized_attention_override": functools.partial(self.in_order, image_tokens, override)}
        if hasattr(self.family, "patches"):
            patches = dict(options.get("patches", {}))
            for name, note in self.family.patches(seen).items():
                patches[name] = [*patches.get(name, ()), note]
            picture = functools.partial(self.family.picture, transformer, image_tokens, seen)
            attention = functools.partial(self.numbered, seen, picture, override)
            options = {name: value for name, value in options.items() if name != "block_index"}  # what another call has left there
            return {**options, "patches": patches, "optimized_attention_override": attention}
        replace = options.get("patches_replace", {})
        dit = dict(replace.get("dit", {}))
        for index, name in enumerate(self.family.blocks(transformer, self.singles)):
            dit[name] = self.replaced(index, dit.get(name), image_tokens, seen)
        return {**options, "patches_replace": {**replace, "dit": dit}}

    def replaced(self, index: int, before, image_tokens: int, seen: dict):
        """A replacement of block `index` that runs it, or whatever replaced it before, with its attention met.

        seen: what the family's blocks leave for one another during the call.
        """

        def run(args: dict, extra: dict) -> dict:
            options = args.get("transformer_options") or {}
            place = Place(index, *self.family.picture(args, image_tokens, seen))
            override = options.get("optimized_attention_override")
            attention = functools.partial(self.meet, place, override) if self.turn is None else functools.partial(
                self.in_turn, [], place, override)
            args = {**args, "transformer_options": {**options, "optimized_attention_override": attention}}
            return before(args, extra) if before is not None else extra["original_block"](args)

        return run

    def numbered(self, seen: dict, picture, override, function, *args, **kwargs):
        """optimized_attention_override of a whole pass: those of blocks are met, which ComfyUI numbers; others run as they are."""
        index = (kwargs.get("transformer_options") or {}).get("block_index")
        if seen and index is not None:
            return self.meet(Place(index, *picture()), override, function, *args, **kwargs)
        return plain(override, function, *args, **kwargs)

    def in_order(self, image_tokens: int, override, function, q, k, *args, **kwargs):
        """optimized_attention_override of a whole pass: those over text and picture are blocks' and are met."""
        if k.shape[1 if k.ndim == 3 else 2] > image_tokens:
            return self.meet(Place(NEXT, None, -image_tokens, 0), override, function, q, k, *args, **kwargs)
        return plain(override, function, q, k, *args, **kwargs)

    def in_turn(self, before: list, place, override, function, *args, **kwargs):
        """optimized_attention_override of one block with several attentions. before: as many as there were in the block."""
        before.append(True)
        if len(before) == self.turn:
            return self.meet(place, override, function, *args, **kwargs)
        return plain(override, function, *args, **kwargs)


def plain(override, function, *args, **kwargs):
    """The attention as it would have been."""
    return function(*args, **kwargs) if override is None else override(function, *args, **kwargs)


def by_head(heads: int, *tensors: Tensor) -> list[Tensor]:
    """Keys and what goes with them as B x heads x N x d; the first tells whether they come as B x N x D, others then sometimes with their
    heads apart."""
    if tensors[0].ndim != 3:
        return list(tensors)
    return [x.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in tensors]
