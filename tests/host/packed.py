"""Weights as GGUF files' are: what .weight holds is packed and has another shape, so that layers can only be called."""

import comfy.ops
import torch


class Packed(comfy.ops.disable_weight_init):
    """Operations for a model's settings, in place of ComfyUI's own."""

    class Linear(torch.nn.Module):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            super().__init__()
            self.in_features, self.out_features, self.packed = in_features, out_features, None

        @property
        def weight(self):
            raise AssertionError("the packed weight was read")

        def _load_from_state_dict(self, state, prefix, *others):
            self.packed, self.bias = state.pop(f"{prefix}weight").flatten(), state.pop(f"{prefix}bias", None)

        def forward(self, x):
            return torch.nn.functional.linear(x, self.packed.reshape(self.out_features, self.in_features), self.bias)
