"""Transformers that torch.compile has compiled, as a whole or in parts.

Compiled code keeps the hooks that it was compiled with, and code with hooks in it would draw another picture in the last
bits. So nothing is put into it: a call that is to be recorded is preceded by one of our own, not compiled, up to the last
block looked at. The picture is what the compiled code makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

Before = Callable[[nn.Module, tuple, dict], None]


def original(module):
    """The module that torch.compile(module) was given; the module itself where it is none of torch.compile's."""
    return getattr(module, "_orig_mod", module)


def as_a_whole(module: nn.Module) -> bool:
    """Whether a call of the module is a call of compiled code."""
    return original(module) is not module or module._compiled_call_impl is not None


def anywhere(module: nn.Module) -> bool:
    """Whether the module or any part of it is compiled."""
    return any(as_a_whole(part) for part in module.modules())


def eagerly(module: nn.Module) -> AbstractContextManager:
    """A context in which nothing that was compiled is used, if anything of this module was. Raises ValueError where torch cannot."""
    if not anywhere(module):
        return nullcontext()
    if not hasattr(torch.compiler, "set_stance"):
        raise ValueError(f"This {type(original(module)).__name__} is compiled by torch.compile. To look into it, torch 2.6 or newer is "
                         f"needed, this is {torch.__version__}. Capture from a transformer that is not compiled.")
    return torch.compiler.set_stance("force_eager")


class CallsOf:
    """What precedes each call of a module that is compiled as a whole, until it is removed: before(module, args, kwargs)."""

    def __init__(self, module: nn.Module, before: Before):
        self.module, self.handle = module, None
        if original(module) is not module:
            self.handle = module.register_forward_pre_hook(before, with_kwargs=True)  # on the wrapper, outside the compiled code
            return
        self.compiled = compiled = module._compiled_call_impl

        def call(*args, **kwargs):
            before(module, args, kwargs)
            return compiled(*args, **kwargs)

        module._compiled_call_impl = self.call = call

    def remove(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        elif self.module._compiled_call_impl is self.call:
            self.module._compiled_call_impl = self.compiled
