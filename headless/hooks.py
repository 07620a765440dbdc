"""What is seen in one call of the transformer: every watched block's image keys, values and attention output."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.concepts import ConceptInputs
from ..core.families.naming import DiffusersNaming, Layers, SharedNaming
from ..core.stream import ConceptStream, rotate
from .families import attention_of, heads_of


class BlockHooks:
    """Forward hooks on the attention of the blocks of a transformer, for one call of it, by the thread that puts them on.

    family: a naming, see core/families. timesteps in 0..1, guidance: one a picture, B. rows: of the batch, which are looked at.
    own: how many image tokens are the picture's own; they stand first, in single-stream blocks after the text. text: how many
    tokens stand before them where all blocks are single-stream, one number a picture where they differ; else None. singles: how many
    single-stream blocks are looked at after double-stream ones, None for all. done: called within the last block's attention, when all
    blocks have been seen, with their scores by space: L x B x C x N.
    """

    def __init__(self, family: DiffusersNaming, transformer: nn.Module, inputs: ConceptInputs, timesteps: Tensor, guidance: Tensor | None,
                 own: int, rows: slice, text: int | list[int] | None, singles: int | None,
                 done: Callable[[dict[str, Tensor]], None]):
        self.family, self.transformer, self.inputs, self.own, self.done = family, transformer, inputs, own, done
        self.timesteps, self.guidance, self.rows, self.singles = timesteps, guidance, rows, singles
        self.text = text  # tokens of the text
        self.first: int | list[int] = 0  # how many stand before the picture's in the block that goes on
        self.stream: ConceptStream | None = None
        self.complete = False
        self.pe: Tensor | None = None  # of the picture's own tokens
        self.keys: Tensor | None = None  # of the block that goes on, as its layers gave them
        self.values: Tensor | None = None
        self.queries: Tensor | None = None  # where they are asked for
        self.gate: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        self.looking = False  # layers that text and image share are called for the concepts
        for block in family.blocks(transformer, singles):
            attn = attention_of(block)
            makes_keys, makes_values, takes_output = family.hooked(attn)
            keys = functools.partial(self.see_keys, attn)
            if inputs.linear:  # the authors' PascalVOC experiments
                if attn.norm_q is None:
                    raise ValueError(f"This {type(transformer).__name__} does not normalise its queries, of which the paper's PascalVOC "
                                     "experiments take scores. Leave linear (--protocol paper) out.")
                self.handles.append(attn.norm_q.register_forward_hook(self._hook(functools.partial(self.see_queries, attn))))
            leave, end = self._hook(functools.partial(self.leave, block)), self._hook(functools.partial(self.end, block))
            self.handles += [attn.register_forward_pre_hook(self._hook(self.enter), with_kwargs=True),
                             makes_keys.register_forward_hook(self._hook(keys)),
                             makes_values.register_forward_hook(self._hook(self.see_values)),
                             attn.register_forward_hook(end) if takes_output is None else takes_output.register_forward_pre_hook(leave)]
            gate = family.gate(attn) if isinstance(family, SharedNaming) else None
            if gate is not None:
                self.handles.append(gate.register_forward_hook(self._hook(self.see_gate)))

    def detach(self) -> None:
        """Take the hooks off."""
        while self.handles:
            self.handles.pop().remove()

    @torch.no_grad()
    def enter(self, attn: nn.Module, args: tuple, kwargs: dict) -> None:
        """A block's attention begins. The concepts begin with the first, for only then are offloaded weights in their place."""
        self.keys = self.values = self.queries = None
        text = kwargs.get("encoder_hidden_states")
        if text is kwargs.get("hidden_states"):  # Lumina 2 gives one sequence of both twice
            text = None
        if text is not None:
            self.text = text.shape[1]
        if self.text is None:
            return
        self.first = self.text if text is None else 0  # single-stream blocks have one sequence of both
        if self.stream is None:
            like = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            guidance = None if self.guidance is None else self.guidance.to(like.device)
            self.stream = ConceptStream(self.family, self.transformer, self.inputs.vectors.to(like), self.timesteps.to(like.device),
                                        guidance, self.inputs.cross_attention, self.inputs.self_attention, self.inputs.linear, self.singles)
            rope = kwargs.get("image_rotary_emb", kwargs.get("freqs_cis"))
            if rope is not None:
                pe = self.family.rotations(*rope) if isinstance(rope, tuple) else self.family.rotations(rope)[self.rows]
                self.pe = self.own_of(pe, 2, 0 if getattr(self.family, "PICTURE_ROPE", False) else self.text)
                if self.stream.pe is None and getattr(self.family, "AT_FIRST_TOKEN", False):
                    self.stream.pe = pe[:, :, :1]

    def see_keys(self, attn: Layers, layer: nn.Module, args: tuple, keys: Tensor) -> None:
        """Keys before RoPE, in the family's own layout."""
        self.keys = self.family.keys(attn, keys)

    def see_queries(self, attn: Layers, layer: nn.Module, args: tuple, queries: Tensor) -> None:
        """Queries, as keys."""
        self.queries = self.family.keys(attn, queries)

    def see_values(self, projection: nn.Module, args: tuple, values: Tensor) -> None:
        """Values B x N x D, or queries, keys, values and what may follow them, B x N x 3D or more."""
        self.values = values

    def see_gate(self, projection: nn.Module, args: tuple, gate: Tensor) -> None:
        """What closes on the attention's output, B x N x D, before its sigmoid."""
        self.gate = gate

    @torch.no_grad()
    def leave(self, block: Layers, projection: nn.Module, args: tuple) -> None:
        """The attention has been computed: its output B x N x D, before the projection, and what may follow it."""
        self.end(block, attention_of(block), (), args[0])

    @torch.no_grad()
    def end(self, block: Layers, attn: Layers, args: tuple, out: Tensor | tuple[Tensor, ...]) -> None:
        """The same where nothing is projected. HunyuanVideo gives picture and text, which is last, apart."""
        parts = out if isinstance(out, tuple) else (out,)
        out, tokens = parts[0], sum(part.shape[1] for part in parts)
        if self.stream is None or self.keys is None or self.values is None or \
                self.keys.shape[::2] != (len(out), tokens) or heads_of(attn) % self.keys.shape[1]:
            return
        rows, heads, width, fewer = self.rows, heads_of(attn), self.keys.shape[-1], self.keys.shape[1]
        out = self.own_of(out[rows], 1, self.first)[..., :heads * width]
        if self.gate is not None:
            out = (out.float() / self.own_of(self.gate[rows], 1, self.first).float().sigmoid()).to(out)
        keys = rotate(self.own_of(self.keys[rows], 2, self.first), self.pe)
        values = self.own_of(self.values[rows], 1, self.first)
        values = values.split(fewer * width, dim=-1)[0 if values.shape[-1] == fewer * width else 2]
        values = values.unflatten(-1, (fewer, -1)).transpose(1, 2)
        if fewer != heads:
            keys, values = (part.repeat_interleave(heads // fewer, dim=1) for part in (keys, values))
        self.looking = True
        try:
            self.stream.watch(block, keys, values, out, self.pe,
                              None if self.queries is None else self.own_of(self.queries[rows], 2, self.first))
        finally:
            self.looking = False
        if self.stream.complete:
            self.complete = True
            self.done({space: torch.stack(scores) for space, scores in self.stream.scores.items()})

    def own_of(self, x: Tensor, axis: int, first: int | list[int]) -> Tensor:
        """Of all tokens, which an axis counts, the picture's own, from `first` on."""
        if isinstance(first, int):
            return x[(slice(None),) * axis + (slice(first, first + self.own),)]
        return torch.stack([self.own_of(one, axis - 1, start) for one, start in zip(x, first)])

    def _hook(self, hook: Callable[..., None]) -> Callable[..., None]:
        """A hook that passes by what other threads do with the same module, and what these hooks do with it themselves."""
        thread = threading.get_ident()

        def run(*seen) -> None:
            if threading.get_ident() == thread and not self.looking:
                hook(*seen)

        return run
