"""Erasing: in a mask, a picture sees of itself only what is around, so that nothing that stood there is drawn again.

Self-attention redirection as in Attentive Eraser (arXiv 2412.12974), in models in which text and picture attend to one another together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad, scaled_dot_product_attention


@dataclass(frozen=True)
class Hole:
    """What is erased in one picture. inside, outside: numbers of its tokens, counted row by row."""

    inside: Tensor
    outside: Tensor
    _places: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, mask: Tensor, patch: int) -> Hole:
        """Of a mask h x w in 0..1 on a latent's grid, with `patch` x `patch` of its values in a token: a token is inside where any of them
        is more than half in the mask. Raises ValueError for a mask that leaves nothing outside."""
        rows, columns = (-side % patch for side in mask.shape)
        inside = (max_pool2d(pad(mask[None].float(), (0, columns, 0, rows)), patch) > 0.5).flatten()
        if inside.all():
            raise ValueError("the mask covers the whole picture, and there is nothing around it to fill it with. Expected a mask of what "
                             "shall go")
        return cls(inside.nonzero().flatten(), (~inside).nonzero().flatten())

    @classmethod
    def all_of(cls, masks: Tensor, patch: int) -> list[Hole]:
        """Of masks B x h x w: one for all pictures, if they are alike, or one each."""
        return [cls.of(mask, patch) for mask in (masks[:1] if bool((masks == masks[:1]).all()) else masks)]

    def places(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Among `count` tokens, of which the picture's begin with `first`: those that are inside, and those that these may see. The same
        in every attention of a run, so they are put together once."""
        if (first, count) not in self._places:
            tokens, end = torch.arange(count, device=self.inside.device), first + len(self.inside) + len(self.outside)
            self._places[first, count] = first + self.inside, torch.cat((tokens[:first], first + self.outside, tokens[end:]))
        return self._places[first, count]

    def to(self, device: torch.device) -> Hole:
        return Hole(self.inside.to(device), self.outside.to(device))


def look_outside(out: Tensor, q: Tensor, k: Tensor, v: Tensor, holes: list[Hole], first: int, mask: Tensor | None = None,
                 scale: float | None = None) -> Tensor:
    """What an attention gives if, in the picture, tokens inside see text and outside alone; all others see what they saw.

    out: B x N x D or B x heads x N x d of the attention as it was. q, k, v: B x heads (of keys and values: or fewer) x N x d, after RoPE.
    holes: for all pictures, or of picture i the one of number i modulo how many there are. first: the picture's first token, counted from
    the last where negative. mask, scale: of the attention, as scaled_dot_product_attention takes them, masks also with fewer dimensions.
    """
    if len(holes) > 1:
        rows = [slice(i, i + 1) for i in range(len(out))]
        masks = [mask[row] if mask is not None and mask.ndim > 2 and len(mask) > 1 else mask for row in rows]
        return torch.cat([look_outside(out[row], q[row], k[row], v[row], [holes[i % len(holes)]], first, masks[i], scale)
                          for i, row in enumerate(rows)])
    [hole] = holes
    if not len(hole.inside):
        return out
    asking, seen = hole.places(first % k.shape[2], k.shape[2])
    if mask is not None:
        mask = mask[None] if mask.ndim == 2 else mask
        mask = mask[:, None] if mask.ndim == 3 else mask
        mask = mask[..., seen] if mask.shape[2] == 1 else mask[:, :, asking][..., seen]
    part = scaled_dot_product_attention(q[:, :, asking], k[:, :, seen], v[:, :, seen], mask, scale=scale,
                                        enable_gqa=q.shape[1] != k.shape[1])
    part = part if out.ndim == 4 else part.transpose(1, 2).flatten(2)
    return out.index_copy(out.ndim - 2, asking, part.to(out))
