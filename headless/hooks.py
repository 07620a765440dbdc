"""What is seen in one call of the transformer: every double-stream block's image keys, values and attention output."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.concepts import ConceptInputs
from ..core.stream import ConceptStream, rotate


class BlockHooks:
    """Forward hooks on the attention of all blocks of a transformer, for one call of it, by the thread that puts them on.

    family: a naming, see core/families. timesteps in 0..1, guidance: one a picture, B. own: how many image tokens are the
    picture's own; they stand first. done: called within the last block's attention, when all blocks have been seen, with
    their scores by space: L x B x C x N.
    """

    def __init__(self, family, transformer: nn.Module, inputs: ConceptInputs, timesteps: Tensor, guidance: Tensor | None, own: int,
                 done: Callable[[dict[str, Tensor]], None]):
        self.family, self.transformer, self.inputs, self.own, self.done = family, transformer, inputs, own, done
        self.timesteps, self.guidance = timesteps, guidance
        self.stream: ConceptStream | None = None
        self.complete = False
        self.pe: Tensor | None = None  # of the picture's own tokens
        self.keys: Tensor | None = None  # of the block that goes on, as its layers gave them
        self.values: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        for block in family.blocks(transformer):
            attn = block.attn
            enter, keys, values, leave = map(_in_this_thread, (self.enter, functools.partial(self.see_keys, attn), self.see_values,
                                                               functools.partial(self.leave, block)))
            self.handles += [attn.register_forward_pre_hook(enter, with_kwargs=True),
                             attn.norm_k.register_forward_hook(keys),
                             (attn.to_qkv if attn.fused_projections else attn.to_v).register_forward_hook(values),
                             attn.to_out[0].register_forward_pre_hook(leave)]

    def detach(self) -> None:
        """Take the hooks off."""
        while self.handles:
            self.handles.pop().remove()

    @torch.no_grad()
    def enter(self, attn: nn.Module, args: tuple, kwargs: dict) -> None:
        """A block's attention begins. The concepts begin with the first, for only then are offloaded weights in their place."""
        self.keys = self.values = None
        if self.stream is None:
            like, first = kwargs["hidden_states"], kwargs["encoder_hidden_states"].shape[1]
            guidance = None if self.guidance is None else self.guidance.to(like.device)
            self.stream = ConceptStream(self.family, self.transformer, self.inputs.vectors.to(like), self.timesteps.to(like.device),
                                        guidance, self.inputs.cross_attention, self.inputs.self_attention, self.inputs.linear)
            rope = kwargs.get("image_rotary_emb")
            if rope is not None:
                pe = self.family.rotations(*rope)
                self.pe = pe[:, :, first:first + self.own]
                if self.stream.pe is None:
                    self.stream.pe = pe[:, :, :1]

    def see_keys(self, attn: nn.Module, layer: nn.Module, args: tuple, keys: Tensor) -> None:
        """Keys, normalised, before RoPE, in the family's own layout."""
        self.keys = self.family.keys(keys, attn.heads)

    def see_values(self, projection: nn.Module, args: tuple, values: Tensor) -> None:
        """Values B x N x D, or queries, keys and values B x N x 3D."""
        self.values = values

    @torch.no_grad()
    def leave(self, block: nn.Module, projection: nn.Module, args: tuple) -> None:
        """The attention has been computed: its output B x N x D, before the projection of the image's part."""
        out, heads = args[0], block.attn.heads
        if self.keys is None or self.values is None or self.keys.shape[:3] != (len(out), heads, out.shape[1]):
            return
        keys = rotate(self.keys[:, :, :self.own], self.pe)
        values = self.values[:, :self.own, -out.shape[-1]:].unflatten(-1, (heads, -1)).transpose(1, 2)
        self.stream.watch(block, keys, values, out[:, :self.own], self.pe)
        if self.stream.complete:
            self.complete = True
            self.done({space: torch.stack(scores) for space, scores in self.stream.scores.items()})


def _in_this_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that passes by what other threads do with the same module."""
    thread = threading.get_ident()

    def run(*seen) -> None:
        if threading.get_ident() == thread:
            hook(*seen)

    return run
