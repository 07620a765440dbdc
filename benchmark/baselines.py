"""Two other ways to see concepts in attention, for comparison: a few lines each, as attention overrides on a clone of the MODEL."""

from __future__ import annotations

import torch
from flux import TEXT
from torch.nn.functional import scaled_dot_product_attention


def overridden(flux, override):
    model = flux.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return flux.changed(model=model)


def attention_probabilities(flux):
    """DAAM's approach: attention is computed as probabilities times values, and the image's probabilities over the text are kept."""
    kept = []

    def override(function, q, k, v, heads, *args, **kwargs):
        probabilities = ((q / q.shape[-1] ** 0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
        kept[:] = [probabilities[:, :, TEXT:, :TEXT].mean(dim=1).float()]
        return (probabilities @ v).transpose(1, 2).flatten(2)

    return overridden(flux, override)


def second_attention(captured, concepts: int):
    """What the authors' code does: a second attention in every double block, in which image tokens ask as well as concepts."""

    def override(function, q, k, v, heads, *args, **kwargs):
        if kwargs.get("transformer_options", {}).get("block_type", "double") == "double":
            rows = torch.zeros_like(q[:, :, :concepts])
            q2, k2, v2 = (torch.cat((rows, x[:, :, TEXT:]), dim=2) for x in (q, k, v))
            scaled_dot_product_attention(q2, k2, v2)
        return function(q, k, v, heads, *args, **kwargs)

    return overridden(captured, override)
