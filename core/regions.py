"""Where exactly: label pictures, disjoint masks, peaks and boxes, for tools that take prompts or segments."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .masks import refine, token_size
from .saliency import Saliency

NOTHING = -1


def labels(saliency: Saliency, image: Tensor | None = None) -> Tensor:
    """The winning concept of every pixel, B x H x W int64; NOTHING where a contrast concept wins.

    image: B x H x W x 3 in 0..1; the borders then follow the picture's edges.
    """
    maps = saliency.pixels(torch.cat((saliency.maps, saliency.contrast_maps), dim=1))
    winner = (maps if image is None else refine(maps, image, token_size(saliency))).argmax(dim=1)
    return torch.where(winner < len(saliency.concepts), winner, NOTHING)


def disjoint_masks(label: Tensor, count: int) -> Tensor:
    """Labels B x H x W -> one mask a concept, B x count x H x W float32, no pixel in two of them."""
    return torch.stack([label == c for c in range(count)], dim=1).float()


def islands(mask: Tensor, min_share: float = 0.001) -> list[tuple[dict[str, int], Tensor]]:
    """The islands of a mask H x W, the largest first: their boxes {x, y, width, height} in pixels, and for each
    its own pixels within the box, height x width bool.

    Islands below `min_share` of the picture are left out.
    """
    numbered, _ = ndimage.label(mask.numpy() > 0.5)
    sizes = np.bincount(numbered.ravel())
    found = [(sizes[number], place, number) for number, place in enumerate(ndimage.find_objects(numbered), 1)
             if sizes[number] >= min_share * mask.numel()]
    return [({"x": int(xs.start), "y": int(ys.start), "width": int(xs.stop - xs.start), "height": int(ys.stop - ys.start)},
             torch.from_numpy(numbered[ys, xs] == number)) for _, (ys, xs), number in sorted(found, key=lambda f: -f[0])]


def peaks(heat: Tensor, count: int, above: float = 0.0) -> list[dict[str, int]]:
    """Up to `count` local maxima of a map H x W over `above`, the highest first, as pixels {x, y}, apart from one another."""
    values = heat.numpy()
    apart = max(3, round(min(values.shape) / 8))
    crest = (ndimage.maximum_filter(values, size=apart) == values) & (values > above)
    islands, number = ndimage.label(crest)
    middles = ndimage.center_of_mass(crest, islands, range(1, number + 1))
    places = sorted(((round(y), round(x)) for y, x in middles), key=lambda place: -values[place])
    return [{"x": int(x), "y": int(y)} for y, x in places[:count]]


def point_prompts(saliency: Saliency, row: int, picture: int = 0, count: int = 3) -> tuple[list[dict], list[dict], Tensor]:
    """Positive points, negative points and the mask H x W of one concept in one picture.

    Positive: peaks of its map where it wins. Negative: peaks of its rivals' maps where it loses.
    """
    maps = saliency.pixels(torch.cat((saliency.maps, saliency.contrast_maps), dim=1))[picture]
    own, others = maps[row], torch.cat((maps[:row], maps[row + 1:]))
    rival = others.amax(dim=0) if len(others) else torch.zeros_like(own)
    wins = own > rival
    return (peaks(torch.where(wins, own, 0.0), count, above=0.05), peaks(torch.where(wins, 0.0, rival), count, above=0.05), wins.float())
