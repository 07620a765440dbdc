"""Looking on while a diffusers pipeline samples: everything that is put on a transformer, and taken off again.

Only forward hooks are used. They see what the attention of each watched block is given and what it makes,
whatever processor, backend, quantisation or LoRA is at work between them, and change nothing.
Source: diffusers/models/transformers/transformer_flux.py and transformer_flux2.py.
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.concepts import DEFAULT_CONTRAST, ConceptInputs
from ..core.families.naming import SharedNaming
from ..core.recording import Recorder
from . import compiled
from .families import arguments, family_of
from .hooks import BlockHooks
from .inputs import Encode, concept_inputs
from .runs import Recordings, Run


@contextmanager
def capture(model: DiffusionPipeline | nn.Module, concepts: str | Sequence[str], *,
            encode: DiffusionPipeline | Encode | None = None, contrast: str | Sequence[str] = DEFAULT_CONTRAST,
            token: str = "mean", cross_attention: bool = False, start: float = 0.0, end: float = 1.0,
            blocks: str = "auto") -> Iterator[Recordings]:
    """Record where a model sees concepts in every picture it makes within the `with` block; the pictures stay the same.

    model: a pipeline of any kind with a model of one of the families, or its transformer; then `encode` is needed. concepts:
    separated by commas, or a list of them; `dog|puppy` are synonyms. encode: whose text encoder is used, or a function that turns
    a phrase into the text vectors of its own tokens, T x D. contrast: rivals that are not shown. token: "mean" or
    "first" of a phrase's tokens. cross_attention: record this space, too: `recordings.in_space("cross-attention")`.
    start, end: shares of the run, 0 to 1, between which is recorded. blocks: "double", "double and first single" or "all", how far
    concepts go in Flux: through the double-stream blocks alone, which is the paper's choice and "auto", or on through single-stream
    ones, whose layers are numbered after them. Every run takes at most 1 GB of memory. Calls from
    several threads are runs of their own, in the order in which they began. A compiled transformer is looked into in a
    pass of its own before each call that is recorded, which takes the time of one up to the last block looked at.

    Raises ValueError for a model that cannot be looked into, and for concepts that cannot be used.
    """
    source = encode if isinstance(encode, DiffusionPipeline) else model
    called: Any = getattr(model, "transformer", model)
    transformer = transformer_of(model)
    if encode is None and not isinstance(model, DiffusionPipeline):
        raise ValueError("A transformer alone cannot encode concepts. Give the pipeline in its place, or encode=pipe.")
    if not 0 <= start <= end <= 1:
        raise ValueError(f"start is {start:g} and end is {end:g}, expected 0 <= start <= end <= 1")
    words = concept_inputs(model if encode is None else encode, concepts, contrast, token, cross_attention, blocks=blocks)
    watch = Capture(transformer, words, scheduler=getattr(source, "scheduler", None), window=(start, end),
                    called=called, guided=lambda: getattr(source, "do_classifier_free_guidance", None))
    try:
        watch.attach()
        yield watch.recordings
    finally:
        watch.detach()


def transformer_of(model: DiffusionPipeline | nn.Module) -> nn.Module:
    """The transformer of a pipeline. Raises ValueError, naming what was found, for one that cannot be looked into."""
    transformer: nn.Module = compiled.original(getattr(model, "transformer", model))
    family_of(transformer)
    spread = len(set((getattr(transformer, "hf_device_map", None) or {}).values())) > 1
    if spread or getattr(transformer, "_parallel_config", None) is not None:
        raise ValueError(f"This is a {type(transformer).__name__} on several devices, which cannot be looked into. "
                         "Load it on one; offloading is fine.")
    return transformer


class EarlyExit(Exception):
    """Everything that was asked for has been seen; the rest of the forward pass is not needed."""


class Capture:
    """The watch on one transformer, which may be called from several threads at once; each has runs of its own.

    scheduler, window: see Run. image_size: (H, W) pixels of an existing picture; then a call stops when all of it has been seen.
    called: what the pipeline calls, where that is not the transformer itself but a compiled one. guided: whether it gives a negative
    prompt just now; None where nothing tells.
    """

    def __init__(self, transformer: nn.Module, inputs: ConceptInputs, scheduler=None,
                 window: tuple[float, float] = (0.0, 1.0), image_size: tuple[int, int] | None = None, called: nn.Module | None = None,
                 guided: Callable[[], bool | None] = lambda: None):
        self.outer = transformer if called is None else called
        self.whole = compiled.as_a_whole(self.outer)  # then nothing can be put on the transformer itself
        self.apart: dict[int, bool] = {}  # by thread: a pass of our own goes on, which may stop when all has been seen
        self.transformer, self.inputs, self.scheduler, self.family = transformer, inputs, scheduler, family_of(transformer)
        self.guided = guided
        self.window, self.image_size, self.singles = window, image_size, self.family.DEFAULTS.singles_of(inputs.blocks)
        self.recordings = Recordings()
        self.handles: list[RemovableHandle | compiled.CallsOf] = []
        self.hooks: dict[int, BlockHooks] = {}  # by thread, at the call that goes on
        self.runs: dict[int, Run] = {}  # by thread, the last
        self.warned: set[tuple[Run, str]] = set()
        self.lock, self.attached = threading.Lock(), False

    def attach(self) -> None:
        self.attached = True
        if self.whole and self.image_size is None:
            self.handles.append(compiled.CallsOf(self.outer, self.before))
            return
        self.handles += [self.transformer.register_forward_pre_hook(self.before, with_kwargs=True),
                         self.transformer.register_forward_hook(self.after, always_call=True)]

    def detach(self) -> None:
        """Take everything off, also of calls that other threads have not ended yet."""
        with self.lock:
            self.attached = False
            for hooks in self.hooks.values():
                hooks.detach()
            self.hooks.clear()
            while self.handles:
                self.handles.pop().remove()

    @torch.compiler.disable
    def before(self, transformer: nn.Module, args: tuple, kwargs: dict) -> None:
        """The transformer is called: find the run it belongs to, and look on if this call is to be recorded.

        What looks into the blocks is put on for each call, so that LoRAs may be changed and projections fused between two.
        """
        if threading.get_ident() in self.apart:
            return
        self._end_hooks()
        if self.image_size is None and not self.whole and compiled.as_a_whole(self.transformer):
            raise ValueError(f"This {type(self.transformer).__name__} was compiled by torch.compile while it was captured, which leaves "
                             "nothing to look at. Compile it before.")
        given = arguments(self.transformer, args, kwargs)
        if given.get("kv_cache_mode") is not None:  # references stand before the picture then, or nowhere
            warnings.warn("Runs of a Flux.2 pipeline that caches its references' keys are not recorded.", stacklevel=2)
            return
        if given.get("skip_layers") is not None:  # SD3's guidance by a pass without some layers, after that with all
            return
        grid, noise, strength = self.family.called(given)
        if grid is None:
            warnings.warn("The tokens of this picture do not stand row by row; it is not recorded.", stacklevel=2)
            return
        tokens, rows = self._positive(given)

        def one_each(value: Tensor) -> Tensor:
            return (value.flatten()[rows] if value.numel() > 1 else value.flatten()).expand(len(tokens))

        timesteps, guidance = one_each(noise), None if strength is None else one_each(strength)
        run, level = self._run(tokens, grid, float(timesteps[0]))
        if run.wants(level, tokens):
            done = functools.partial(self.keep, run, level)
            with self.lock:
                if self.attached:
                    hooks = BlockHooks(self.family, self.transformer, self.inputs, timesteps, guidance, math.prod(grid), rows,
                                       self.family.before(given) if isinstance(self.family, SharedNaming) else None, self.singles, done)
                    self.hooks[threading.get_ident()] = hooks
            if self.image_size is None and threading.get_ident() in self.hooks and compiled.anywhere(self.outer):
                self._look_apart(args, kwargs)

    def _positive(self, given: dict) -> tuple[Tensor, slice]:
        """Of a call's positive prompts: the noisy pictures, or their tokens, and where they are in the batch."""
        if isinstance(self.family, SharedNaming):
            tokens = self.family.pictures(given, self.guided() is not False)
            return tokens, slice(0, len(tokens))
        tokens = given["hidden_states"]
        rows = slice(len(tokens) // 2 if getattr(self.family, "BOTH_PROMPTS", False) and self.guided() else 0, None)
        return tokens[rows], rows

    @torch.no_grad()
    def _look_apart(self, args: tuple, kwargs: dict) -> None:
        """The call that is about to be made of compiled code, made without it beforehand. Raises ValueError for a step cache, which
        would take it for one of its own."""
        if getattr(self.transformer, "is_cache_enabled", False):
            raise ValueError(f"This {type(self.transformer).__name__} is compiled by torch.compile and has a step cache, and cannot be "
                             "looked into with both. Switch the cache off with disable_cache(), or capture from one that is not compiled.")
        thread = threading.get_ident()
        scaled = kwargs.get("joint_attention_kwargs") or kwargs.get("attention_kwargs")
        self.apart[thread] = not scaled  # a LoRA's scale is taken back at the end of the pass
        hooks = self.hooks[thread]
        try:
            with compiled.eagerly(self.outer):
                self.transformer(*args, **kwargs)
        except EarlyExit:
            pass
        finally:
            del self.apart[thread]
            self._end_hooks()
        self._tell_end(hooks)

    @torch.compiler.disable
    def after(self, transformer: nn.Module, args: tuple, output) -> None:
        """The transformer has ended, well or with an exception; then there is no output."""
        hooks = self._end_hooks()
        if output is not None:
            self._tell_end(hooks)

    def _tell_end(self, hooks: BlockHooks | None) -> None:
        if hooks is not None and not hooks.complete:
            self._warn(self.runs[threading.get_ident()], "Steps in which a cache skips blocks of the model, or an attention processor "
                                                         "does without the attention's own layers, are not recorded.")

    def keep(self, run: Run, level: float, scores: dict[str, Tensor]) -> None:
        """All blocks of a call have been seen."""
        run.recorder.add(level, scores)
        for note in run.recorder.notes:
            self._warn(run, note)
        if self.image_size is not None or self.apart.get(threading.get_ident()):
            raise EarlyExit

    def _run(self, tokens: Tensor, grid: tuple[int, ...], level: float) -> tuple[Run, float]:
        """The run that a call belongs to, a new one if need be, and its noise level there."""
        size, thread = (len(tokens), *grid), threading.get_ident()
        run = self.runs.get(thread)
        if run is None or not run.includes(self.scheduler, level, size, tokens):
            depth = len(self.family.blocks(self.transformer, self.singles))
            recorder = functools.partial(
                Recorder, self.inputs.concepts, self.inputs.contrast, self.family.NAME, self.family.DEFAULTS, patch=self.family.PIXELS,
                depth=depth, singles=depth - len(self.family.blocks(self.transformer)),
                frames=math.prod(grid[:-2]), compression=getattr(self.family, "COMPRESSION", 1),
                image_size=self.image_size or (grid[-2] * self.family.PIXELS, grid[-1] * self.family.PIXELS))
            self.runs[thread] = run = Run(self.scheduler, level, size, tokens, recorder, self.window)
            self.recordings.runs.append(run)
        return run, run.exact(level)

    def _end_hooks(self) -> BlockHooks | None:
        """Take this thread's hooks off; returns it."""
        hooks = self.hooks.pop(threading.get_ident(), None)
        if hooks is not None:
            hooks.detach()
        return hooks

    def _warn(self, run: Run, message: str) -> None:
        """Say it once a run."""
        if (run, message) not in self.warned:
            self.warned.add((run, message))
            warnings.warn(message, stacklevel=2)
