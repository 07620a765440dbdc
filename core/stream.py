"""The concept tokens' way through a model's blocks: the paper's equations (arXiv 2502.04320, section 4).

Image and text tokens never see the concepts, so the picture is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from .families.naming import Layers, Naming


class Block(Protocol):
    """What one block of a model does to a concept token: the same as to a text token. States are B x C x D."""

    def project(self, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States -> normalised queries, keys and values before RoPE, each B x heads x C x d."""

    def update(self, concepts: Tensor, out: Tensor) -> Tensor:
        """States and their attention output B x C x D -> the states after the block."""


@dataclass(frozen=True)
class TextStream:
    """A Block of attention, then MLP: the text-stream half of a double-stream block, whatever its model calls it, or one with the same
    weights for text and image.

    shift, scale, gate: B x 1 x D, for the attention (1) and the MLP (2). qkv: see Block.project.
    """

    shift1: Tensor
    scale1: Tensor
    gate1: Tensor
    shift2: Tensor
    scale2: Tensor
    gate2: Tensor
    _: KW_ONLY
    norm1: Callable[[Tensor], Tensor]
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    to_out: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]

    @classmethod
    def attention_only(cls, shift: Tensor, scale: Tensor, *, norm: Callable, qkv: Callable) -> TextStream:
        """Of a last block in which text ends with its keys and values: it has no `update`, and nobody asks for one."""
        none, nothing = shift[..., :0], torch.nn.Identity()
        return cls(shift, scale, none, none, none, none, norm1=norm, qkv=qkv, to_out=nothing, norm2=nothing, mlp=nothing)

    def project(self, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.qkv((1 + self.scale1) * self.norm1(concepts) + self.shift1)

    def update(self, concepts: Tensor, out: Tensor) -> Tensor:
        concepts = concepts + self.gate1 * self.to_out(out)
        return concepts + self.gate2 * self.mlp((1 + self.scale2) * self.norm2(concepts) + self.shift2)


@dataclass
class ParallelStream:
    """A Block with one set of weights for text and image, and with attention and MLP side by side: a single-stream block.

    shift, scale, gate: B x 1 x D. enter: modulated states -> queries, keys and values (see Block.project), and the MLP's
    activations. leave: attention output and these, side by side -> B x C x D.
    """

    shift: Tensor
    scale: Tensor
    gate: Tensor
    _: KW_ONLY
    norm: Callable[[Tensor], Tensor]
    enter: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
    leave: Callable[[Tensor], Tensor]
    hidden: Tensor | None = None  # the MLP's activations, from `project` to `update`: one layer computes both halves

    def project(self, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, self.hidden = self.enter((1 + self.scale) * self.norm(concepts) + self.shift)
        return q, k, v

    def update(self, concepts: Tensor, out: Tensor) -> Tensor:
        assert self.hidden is not None, "project comes first"
        return concepts + self.gate * self.leave(torch.cat((out, self.hidden), dim=-1))


@dataclass(frozen=True)
class TextKeys:
    """A Block of a model in which text has no stream of its own, but keys in each block's cross-attention. See KeyStream.

    keys: B x C x D -> B x heads x C x d.
    """

    keys: Callable[[Tensor], Tensor]

    def project(self, concepts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys alone; of queries and values nothing is there."""
        keys = self.keys(concepts)
        return keys[..., :0], keys, keys[..., :0]

    def update(self, concepts: Tensor, out: Tensor) -> Tensor:
        """As they are."""
        return concepts


def attend(q: Tensor, k: Tensor, v: Tensor, image_keys: Tensor, image_values: Tensor, self_attention: bool = True) -> Tensor:
    """The concepts' attention output o_c B x C x D, from their queries, keys and values B x heads x C x d and the
    image's keys and values B x heads x N x d. Queries and keys are those after RoPE.

    self_attention: concepts see one another beside the image; without (the paper's ablation) the image only.
    """
    seen_keys, seen_values = image_keys.to(k), image_values.to(v)
    if self_attention:
        seen_keys, seen_values = torch.cat((k, seen_keys), dim=2), torch.cat((v, seen_values), dim=2)
    return scaled_dot_product_attention(q, seen_keys, seen_values).transpose(1, 2).flatten(2)


def output_scores(concept_out: Tensor, image_out: Tensor) -> Tensor:
    """Output space, s = o_c . o_img: B x C x D and B x N x D -> B x C x N float32."""
    return _products(concept_out, image_out.to(concept_out))


def cross_attention_scores(concept_queries: Tensor, image_keys: Tensor) -> Tensor:
    """The weaker baseline: queries . keys before RoPE, B x heads x C (or N) x d, unscaled, summed over heads -> B x C x N float32."""
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


def within_range(states: Tensor) -> Tensor:
    """Half precision ends at 65504: what is beyond becomes its end, as ComfyUI and diffusers do with the text after every block."""
    return torch.nan_to_num(states) if states.dtype == torch.float16 else states


def linear_shares(rows: Tensor) -> Tensor:
    """Every concept's share in each dimension, ... x C x D float32: what it has above the least of them, of all that they have.

    The paper's PascalVOC experiments take the scores of these, without a softmax.
    """
    above = rows.float() - rows.float().amin(dim=-2, keepdim=True)
    total = above.sum(dim=-2, keepdim=True)
    return above / torch.where(total == 0, 1, total)


def rotate(x: Tensor, pe: Tensor | None) -> Tensor:
    """RoPE: x B x heads x N x d, pe B x 1 x N x d/2 x 2 x 2 (rotations, as in flux/math.py); None is the identity."""
    if pe is None:
        return x
    pairs = x.to(pe.dtype).unflatten(-1, (-1, 1, 2))
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).flatten(-2).to(x.dtype)


def unrotate(keys: Tensor, pe: Tensor | None) -> Tensor:
    """Undo `rotate`: the inverse of a rotation is its transpose."""
    return rotate(keys, None if pe is None else pe.transpose(-1, -2))


class ConceptStream:
    """Carries concept states through one forward pass and collects every block's scores.

    vectors: 1 x C x D_text, text vectors of the concepts. family: a naming, see core/families. cross_attention: scores of
    that space beside those of "output". self_attention: see attend. linear: scores of linear_shares. singles: through how many
    single-stream blocks the concepts go on after the double-stream ones, None for all.
    """

    def __init__(self, family: Naming, model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None,
                 cross_attention: bool = False, self_attention: bool = True, linear: bool = False, singles: int | None = 0):
        self.family, self.self_attention, self.linear = family, self_attention, linear
        self.depth = len(family.blocks(model, singles))
        self.states, self.modulation, self.pe = family.begin(model, vectors, timesteps, guidance)
        self.scores: dict[str, list[Tensor]] = {"output": []}
        if cross_attention:
            self.scores["cross-attention"] = []

    @property
    def seen(self) -> int:
        """How many blocks have been seen."""
        return len(next(iter(self.scores.values())))

    @property
    def complete(self) -> bool:
        """Whether every block has been seen."""
        return self.seen == self.depth

    def watch(self, module: Layers, image_keys: Tensor, image_values: Tensor, image_out: Tensor, image_pe: Tensor | None,
              image_queries: Tensor | None = None) -> Tensor:
        """Look on at one block (see attend and output_scores for the shapes); returns o_c.

        image_queries: B x heads x N x d before RoPE; with them cross-attention is theirs with the concepts' keys, as in the authors'
        PascalVOC experiments.
        """
        block = self.family.block(module, self.modulation, self.seen)
        q, k, v = block.project(self.states)
        out = attend(rotate(q, self.pe), rotate(k, self.pe), v, image_keys, image_values, self.self_attention)
        self.scores["output"].append(output_scores(linear_shares(out) if self.linear else out, image_out))
        if "cross-attention" in self.scores:
            rows, columns = (q, unrotate(image_keys, image_pe)) if image_queries is None else (k, image_queries)
            self.scores["cross-attention"].append(cross_attention_scores(linear_shares(rows) if self.linear else rows, columns))
        if not self.complete:  # nobody reads the states after the last block
            self.states = within_range(block.update(self.states, out))
        return out


class KeyStream(ConceptStream):
    """The same where text has no stream of its own: concepts' keys in every block's cross-attention against the picture's queries.

    That is the paper's baseline, and the only space there is. As there, concepts' rivals are one another and the contrast words, not
    the prompt's keys: what all concepts of a patch and a head are divided by cancels between them, and a word that the prompt names,
    too, or the empty places after it would take most of a concept's share. So maps do not depend on how a prompt is worded, and what is
    recorded are plain products, of which temperature, layers and contrast can be asked afterwards.
    """

    def __init__(self, family: Naming, model: Layers, vectors: Tensor, timesteps: Tensor):
        super().__init__(family, model, vectors, timesteps, None)
        self.scores = {"cross-attention": []}

    def ask(self, module: Layers, image_queries: Tensor) -> None:
        """Look on at one block: what the picture asks its text, B x heads x N x d."""
        _, keys, _ = self.family.block(module, self.modulation, self.seen).project(self.states)
        self.scores["cross-attention"].append(cross_attention_scores(keys, image_queries))
