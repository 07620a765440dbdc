"""The concept tokens' way through the double-stream blocks: the paper's equations (arXiv 2502.04320, section 4).

Image and text tokens never see the concepts, so the picture is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class TextStream:
    """The text-stream half of one block, whatever its model calls it.

    shift, scale, gate: B x 1 x D, for the attention (1) and the MLP (2). qkv: B x C x D -> normalised
    queries, keys and values, each B x heads x C x d.
    """

    shift1: Tensor
    scale1: Tensor
    gate1: Tensor
    shift2: Tensor
    scale2: Tensor
    gate2: Tensor
    norm1: Callable[[Tensor], Tensor]
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    project: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


def attend(text: TextStream, concepts: Tensor, image_keys: Tensor, image_values: Tensor,
           self_attention: bool = True) -> tuple[Tensor, Tensor]:
    """Concept states B x C x D, image keys (after RoPE) and values B x heads x N x d -> the attention output
    o_c B x C x D and the queries B x heads x C x d.

    self_attention: concepts see one another beside the image; without (the paper's ablation) the image only.
    """
    q, k, v = text.qkv((1 + text.scale1) * text.norm1(concepts) + text.shift1)
    seen_keys, seen_values = image_keys.to(k), image_values.to(v)
    if self_attention:
        seen_keys, seen_values = torch.cat((k, seen_keys), dim=2), torch.cat((v, seen_values), dim=2)
    return scaled_dot_product_attention(q, seen_keys, seen_values).transpose(1, 2).flatten(2), q


def update(text: TextStream, concepts: Tensor, out: Tensor) -> Tensor:
    """Concept states and their attention output, both B x C x D -> the states after the block."""
    concepts = concepts + text.gate1 * text.project(out)
    return concepts + text.gate2 * text.mlp((1 + text.scale2) * text.norm2(concepts) + text.shift2)


def output_scores(concept_out: Tensor, image_out: Tensor) -> Tensor:
    """Output space, s = o_c . o_img: B x C x D and B x N x D -> B x C x N float32."""
    return _products(concept_out, image_out.to(concept_out))


def cross_attention_scores(concept_queries: Tensor, image_keys: Tensor) -> Tensor:
    """The weaker baseline: queries . keys before RoPE, unscaled, summed over heads -> B x C x N float32."""
    return _products(concept_queries.transpose(1, 2).flatten(2), image_keys.to(concept_queries).transpose(1, 2).flatten(2))


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """B x C x D and B x N x D -> B x C x N float32, whose differences between rows survive half precision.

    What the rows have in common is multiplied apart, for only the differences decide a softmax over concepts;
    and everything 64 times smaller, for float16 ends at 65504.
    """
    common = rows.float().mean(dim=1, keepdim=True)
    parts = torch.cat((rows - common, common), dim=1) / 64
    products = torch.bmm(parts.to(rows), columns.transpose(1, 2)).float() * 64
    return products[:, :-1] + products[:, -1:]


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """RoPE: x B x heads x N x d, pe B x 1 x N x d/2 x 2 x 2 (rotations, as in flux/math.py)."""
    pairs = x.to(pe.dtype).unflatten(-1, (-1, 1, 2))
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).flatten(-2).to(x.dtype)


def unrotate(keys: Tensor, pe: Tensor) -> Tensor:
    """Undo `rotate`: the inverse of a rotation is its transpose."""
    return rotate(keys, pe.transpose(-1, -2))


class ConceptStream:
    """Carries concept states through one forward pass and collects every block's scores.

    vectors: 1 x C x D_text, text vectors of the concepts. family: see core/families. space:
    "output" alone, or also "cross-attention". self_attention: see attend.
    """

    def __init__(self, family, model, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None, cross_attention: bool = False,
                 self_attention: bool = True):
        self.family, self.self_attention = family, self_attention
        self.depth = len(family.blocks(model))
        self.states, self.vec = family.begin(model, vectors, timesteps, guidance)
        self.scores: dict[str, list[Tensor]] = {"output": []}
        if cross_attention:
            self.scores["cross-attention"] = []

    @property
    def complete(self) -> bool:
        """Whether every block has been seen."""
        return len(self.scores["output"]) == self.depth

    def watch(self, block, image_keys: Tensor, image_values: Tensor, image_out: Tensor, image_pe: Tensor) -> Tensor:
        """Look on at one block (see attend and output_scores for the shapes); returns o_c."""
        text = self.family.text_stream(block, self.vec)
        out, queries = attend(text, self.states, image_keys, image_values, self.self_attention)
        self.scores["output"].append(output_scores(out, image_out))
        if "cross-attention" in self.scores:
            self.scores["cross-attention"].append(cross_attention_scores(queries, unrotate(image_keys, image_pe)))
        if not self.complete:  # nobody reads the states after the last block
            self.states = update(text, self.states, out)
        return out
