"""A look at attention from within compiled code, and beside ComfyUI's own compiler.

torch.compile fuses what it can see, and a picture from differently fused code differs in its last bits. So
that compiled code stays as it is, it sees of this pack only opaque operations, which call the Capture (or
the Eraser) they belong to. Outside compiled code that is called directly.

The Comfy Compiler (ComfyUI 0.34 and newer, on CUDA) records what a transformer allocates and lays the same
memory out for its next calls. What we allocate meanwhile is none of it.
Source: torch.library.custom_op; comfy_api/torch_helpers/torch_compile.py; comfy/model_prefetch.py.
"""

import contextlib
import itertools
import re
import sys
import weakref
from typing import Optional

import comfy.ldm.modules.attention
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

COMPILE_KEY = "torch.compile"  # of the wrapper that swaps in the compiled model
_KEYWORDS = "torch_compile_kwargs"  # how it was compiled, in model_options
_SPACE = "concept_saliency_" + re.sub(r"\W", "_", __name__)  # two copies of the pack do not share operations
_owners: "weakref.WeakValueDictionary" = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def register(owner) -> tuple[str, Tensor]:
    """A name by which operations find their owner, and a ledger: operations that write to it are neither dropped nor reordered."""
    name = f"{_SPACE}_{next(_numbers)}"
    _owners[name] = owner
    return name, torch.zeros(1)


def mark(name: str, options: dict) -> dict:
    """A keyword for a compiled transformer, by which it tells code with a watch from code without one; else none.

    ComfyUI lets compiled code ignore changes of transformer_options.
    """
    return {name: True} if COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}) else {}


def original(module: torch.nn.Module) -> torch.nn.Module:
    """The module behind a compiled one."""
    return getattr(module, "_orig_mod", module)


def check(model_options: dict, bare: bool = False) -> None:
    """Raise ValueError for a compiled model that would run code without a watch where one belongs, or the other way round.

    That is so where transformer_options are ignored and the attention breaks the code into pieces, which `mark` cannot reach.
    """
    options = model_options.get("transformer_options", {})
    if bare and COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):  # nothing in it looks at the mark
        raise ValueError("Concept Attention and Erase under Mask cannot look into an SD3 that is compiled. Take TorchCompileModel out.")
    ignores = (model_options.get(_KEYWORDS) or {}).get("options") is not None  # torch takes the filter itself out of them
    if not ignores or COMPILE_KEY not in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
        return
    kind = getattr(comfy.ldm.modules.attention.optimized_attention, "__name__", "unknown")
    if options.get("optimized_attention_override") is not None:
        kind = "replaced by another node"
    if kind != "attention_pytorch":
        raise ValueError(f"Concept Attention cannot look into a model compiled by TorchCompileModel when its attention cannot be compiled "
                         f"(it is {kind}). Start ComfyUI with --use-pytorch-cross-attention, or take TorchCompileModel out.")


def unrecorded():
    """A context whose allocations the Comfy Compiler leaves alone; without one it does nothing.

    Such contexts do not nest: a layer of the model that has left one of its own, to store a table, has ended ours.
    """
    return getattr(sys.modules.get("comfy.model_prefetch"), "pause_malloc_graph", contextlib.nullcontext)()


@torch.library.custom_op(f"{_SPACE}::begin", mutates_args=("ledger",))
def _begin(ledger: Tensor, context: Tensor, timestep: Tensor, guidance: Optional[Tensor], name: str) -> None:
    if name in _owners:
        _owners[name].begin(context, timestep, guidance)


@torch.library.custom_op(f"{_SPACE}::look", mutates_args=("ledger",))
def _look(ledger: Tensor, k: Tensor, v: Tensor, out: Tensor, index: int, pe: Optional[Tensor], first: int, end: int, name: str) -> None:
    if name in _owners:
        _owners[name].look(k, v, out, index, pe, first, end)


@torch.library.custom_op(f"{_SPACE}::look_outside", mutates_args=())
def _look_outside(out: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int, mask: Optional[Tensor], scale: Optional[float],
                  name: str) -> Tensor:
    given = _owners[name].outside(out, q, k, v, first, mask, scale) if name in _owners else out
    return given.clone() if given is out else given  # an operation may not give what it was given


@_look_outside.register_fake
def _(out: Tensor, *_) -> Tensor:
    return torch.empty_like(out)


def begin(capture, context: Tensor, timestep: Tensor, guidance: Optional[Tensor]) -> None:
    if torch.compiler.is_compiling():
        _begin(capture.ledger, context, timestep, guidance, capture.name)
    else:
        capture.begin(context, timestep, guidance)


def look(capture, k: Tensor, v: Tensor, out: Tensor, index: int, pe: Optional[Tensor], first: int, end: int) -> None:
    if torch.compiler.is_compiling():
        _look(capture.ledger, k, v, out, index, pe, first, end, capture.name)
    else:
        capture.look(k, v, out, index, pe, first, end)


def look_outside(eraser, out: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int, mask: Optional[Tensor],
                 scale: Optional[float]) -> Tensor:
    if torch.compiler.is_compiling():
        return _look_outside(out, q, k, v, first, mask, scale, eraser.name)
    return eraser.outside(out, q, k, v, first, mask, scale)
