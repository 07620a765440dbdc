"""Looking on while ComfyUI samples: everything of this pack that is put on a model, and taken off again.

A sampling run passes through three wrappers: OUTER_SAMPLE begins and ends a recording, APPLY_MODEL decides
which rows of a call are looked at, DIFFUSION_MODEL puts a watch on every block that the model's family names (watch.py). The last
one may be compiled together with the model, so it decides nothing.
Source: comfy/samplers.py (calc_cond_batch), comfy/patcher_extension.py.
"""

from __future__ import annotations

import math
import threading

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..core.concepts import ConceptInputs
from ..core.families import Defaults
from ..core.recording import Recorder
from ..core.stream import ConceptStream, KeyStream
from . import compiled
from .active_run import ActiveRun, Call
from .live_preview import LivePreview
from .runs import ConceptRuns, Fingerprint
from .watch import NEXT, Place, Watch, by_head, plain

KEY = "concept_saliency"


class EarlyExit(Exception):
    """All that is recorded has been seen; the rest of the forward pass is not needed."""


class Capture:
    """What one Concept Attention node adds to a model. Between runs it holds the concept vectors and nothing else.

    family: a naming, see core/families. inputs: see core.concepts.ConceptInputs. window: noise levels between which
    is recorded. image_size: of an existing picture; then a call stops when all of it has been seen. preview: shows the
    maps so far while sampling, see live_preview.py.
    """

    def __init__(self, family, inputs: ConceptInputs, defaults: Defaults, window: tuple[float, float], runs: ConceptRuns,
                 image_size: tuple[int, int] | None = None, preview: LivePreview | None = None):
        self.family, self.inputs, self.defaults, self.window, self.runs = family, inputs, defaults, window, runs
        self.singles = defaults.singles_of(inputs.blocks)
        self.keys_only = getattr(family, "KEYS_ONLY", False)
        self.image_size, self.preview = image_size, preview
        self.run: ActiveRun | None = None
        self.watch = Watch(family, self.attention, self.singles, turn=2)
        self.local = threading.local()  # its `call`: devices that share a run have a thread each
        self.name, self.ledger = compiled.register(self)

    def attach_to(self, model) -> None:
        """Put the wrappers on a MODEL."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.outer_sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self.apply_model)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self.diffusion_model)

    @staticmethod
    def detach_all(model) -> None:
        """Take the wrappers of every Concept Attention node off a MODEL."""
        for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL):
            model.remove_wrappers_with_key(kind, KEY)

    def outer_sample(self, executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
        """OUTER_SAMPLE wrapper: one recording per sampling run, begun and ended here whatever happens in between."""
        guider = executor.class_obj
        transformer = self.watch.prepare(guider)
        depth = len(self.family.blocks(transformer, self.singles))
        latent_pixels = self.family.PIXELS // self.family.PATCH
        recorder = Recorder(self.inputs.concepts, self.inputs.contrast, self.family.NAME, self.defaults, sigmas.tolist(), depth,
                            self.image_size or tuple(side * latent_pixels for side in noise.shape[-2:]), self.family.PIXELS,
                            singles=depth - len(self.family.blocks(transformer)), frames=math.prod(noise.shape[2:-2]),
                            compression=getattr(self.family, "COMPRESSION", 1))
        if self.preview is not None:
            callback = self.preview.after(callback, recorder)
        outer, self.run = self.run, ActiveRun(recorder, self.inputs.vectors, tuple(noise.shape), guider)
        try:
            samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs)
            self.runs.keep(self.run.close(Fingerprint.of(samples)))
            return samples
        finally:
            self.run = outer

    def apply_model(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        """APPLY_MODEL wrapper: decide what is looked at in one call, and keep what was seen."""
        options = transformer_options or {}
        kwargs |= compiled.mark(self.name, options)
        call = self.run.call(x, options, self.window) if self.run is not None else None
        if self.watch.bare and call is not None:
            options = self.watch.options(executor.class_obj.diffusion_model, options, x)
        args = (x, t, c_concat, c_crossattn, control, options)
        if call is None:
            return executor(*args, **kwargs)
        if self.watch.bare:
            call.timestep = executor.class_obj.model_sampling.timestep(t).float()
        call.transformer = compiled.original(executor.class_obj.diffusion_model)
        self.local.call = call
        try:
            result = executor(*args, **kwargs)
        except EarlyExit:
            result = x
        finally:
            self.local.call = None
        self.run.add(call)
        return result

    def diffusion_model(self, executor, *args, **kwargs):
        """DIFFUSION_MODEL wrapper: every block is watched, whatever stood there before."""
        kwargs.pop(self.name, None)
        if not torch.compiler.is_compiling() and getattr(self.local, "call", None) is None:  # compiled code must do for every call
            return executor(*args, **kwargs)
        given = self.watch.given(args, kwargs)
        compiled.begin(self, given["context"], given[self.watch.order[1]], given.get("guidance"))
        return self.watch.call(executor, given, len(args))

    def attention(self, place: Place, override, function, q, k, v, heads, *args, **kwargs):
        """optimized_attention_override of one block: the attention as it would have been, and a look at it."""
        out = plain(override, function, q, k, v, heads, *args, **kwargs)
        if self.keys_only:
            k = v = q
        if isinstance(k, Tensor) and isinstance(v, Tensor):
            compiled.look(self, *by_head(heads, k, v), out, *place)
        return out

    # What follows is never compiled.

    def current(self) -> Call | None:
        """The call that this thread looks at; None while a CUDA graph is captured, which would do again whatever we do."""
        capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        return None if capturing else getattr(self.local, "call", None)

    def begin(self, context: Tensor, timestep: Tensor, guidance: Tensor | None) -> None:
        """The transformer has been called."""
        call = self.current()
        if call is not None:
            rows = call.rows
            call.blocks = list(self.family.blocks(call.transformer, self.singles).values())
            with compiled.unrecorded():
                given = self.family, call.transformer, self.run.vectors_like(context), timestep[rows]
                stream = KeyStream(*given) if self.keys_only else ConceptStream(
                    *given, None if guidance is None else guidance[rows], self.inputs.cross_attention, singles=self.singles)
            call.begin(stream)

    def look(self, k: Tensor, v: Tensor, out: Tensor, index: int, pe: Tensor | None, first: int, end: int) -> None:
        """Block `index` has computed an attention: keys and values B x heads x N x d, output B x N x D, RoPE of the keys; where text has
        no stream of its own, the queries in place of both.

        first, end: the picture's own tokens, counted from the last where negative. Only the block whose turn it is counts, and
        only its first attention over the picture; NEXT is whichever turn it is.
        """
        call = self.current()
        if call is not None and call.stream is None and call.timestep is not None:
            self.begin(out, call.timestep, None)
        if call is None or call.stream is None or call.stream.complete or k.shape[2] < max(end, -first):
            return
        turn = call.stream.seen
        if index not in (NEXT, turn):
            return
        rows, image = call.rows, slice(first, end or None)
        with compiled.unrecorded():
            if pe is not None:
                pe = pe if pe.shape[0] == 1 else pe[rows]
                if call.stream.pe is None and getattr(self.family, "AT_FIRST_TOKEN", False):
                    call.stream.pe = pe[:, :, :1].clone()
                pe = pe[:, :, image]
            if self.keys_only:
                call.stream.ask(call.blocks[turn], k[rows][:, :, image])
            else:
                call.stream.watch(call.blocks[turn], k[rows][:, :, image], v[rows][:, :, image], out[rows][:, image], pe)
        call.keep()
        if self.image_size is not None and call.stream.complete:
            raise EarlyExit
