"""Where exactly: label pictures, disjoint masks, peaks and boxes, for tools that take prompts or segments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .masks import large, refine, token_size
from .saliency import Saliency

NOTHING = -1
_NECK = 0.35  # of the width of the narrower of two things that touch: where their island is narrower, it is cut
_CRUMB = 0.25  # of a concept's largest piece, which is half its width: smaller ones are no things of their own
_FINE = 256  # pixels to the longer side of an island: as many are enough to find its necks
_LEVELS = 24


def labels(saliency: Saliency, image: Tensor | None = None) -> Tensor:
    """The winning concept of every pixel, B x H x W int64; NOTHING where a contrast concept wins.

    image: B x H x W x 3 in 0..1; the borders then follow the picture's edges, and specks of its texture go to what is around them.
    """
    maps = saliency.pixels(torch.cat((saliency.maps, saliency.contrast_maps), dim=1))
    winner = (maps if image is None else refine(maps, image, token_size(saliency))).argmax(dim=1)
    label = torch.where(winner < len(saliency.concepts), winner, NOTHING)
    return label if image is None else torch.stack([_without_specks(one) for one in label])


def _without_specks(label: Tensor) -> Tensor:
    """A refined label picture H x W in which islands too small to be meant have the label of the nearest larger one."""
    values = label.numpy()
    meant = np.logical_or.reduce([large(values == value) for value in np.unique(values)])
    if meant.all() or not meant.any():
        return label
    return torch.from_numpy(values[tuple(ndimage.distance_transform_edt(~meant, return_distances=False, return_indices=True))])


def disjoint_masks(label: Tensor, count: int) -> Tensor:
    """Labels B x H x W -> one mask a concept, B x count x H x W float32, no pixel in two of them."""
    return torch.stack([label == c for c in range(count)], dim=1).float()


def islands(mask: Tensor, min_share: float = 0.001) -> list[tuple[dict[str, int], Tensor]]:
    """The islands of a mask H x W, the largest first: their boxes {x, y, width, height} in pixels, and for each
    its own pixels within the box, height x width bool.

    Islands below `min_share` of the picture are left out.
    """
    numbered, _ = ndimage.label(mask.numpy() > 0.5)
    return _pieces(numbered, min_share * mask.numel())


def instances(mask: Tensor, min_share: float = 0.001) -> list[tuple[dict[str, int], Tensor]]:
    """The single things of a mask H x W, in the form of `islands`: two cats that touch are two, and crumbs beside a cat are none.

    An island is cut where it is about a third as wide as the narrower of the parts that it joins there, or less, a part being as wide
    as the largest circle within. Pieces below a quarter of the largest, or below `min_share` of the picture, are left out.
    """
    found = islands(mask, min_share)
    numbered, number = np.zeros(mask.shape, dtype=np.int32), 0
    for box, island in found:
        parts = _parted(island.numpy())
        own = numbered[box["y"]:box["y"] + box["height"], box["x"]:box["x"] + box["width"]]
        np.copyto(own, parts + number, where=parts > 0)
        number += parts.max()
    pieces = _pieces(numbered, min_share * mask.numel())
    sizes = [int(own.sum()) for _, own in pieces]
    return [piece for piece, size in zip(pieces, sizes) if size >= _CRUMB * sizes[0]]


def _pieces(numbered: np.ndarray, least: float) -> list[tuple[dict[str, int], Tensor]]:
    """What bears the numbers 1, 2, ... in a picture H x W and has at least so many pixels, the largest first; see `islands`."""
    sizes = np.bincount(numbered.ravel())
    found = [(sizes[number], place, number) for number, place in enumerate(ndimage.find_objects(numbered), 1) if sizes[number] >= least]
    return [({"x": int(xs.start), "y": int(ys.start), "width": int(xs.stop - xs.start), "height": int(ys.stop - ys.start)},
             torch.from_numpy(numbered[ys, xs] == number)) for _, (ys, xs), number in sorted(found, key=lambda f: -f[0])]


def _parted(island: np.ndarray) -> np.ndarray:
    """An island H x W bool -> the numbers 1, 2, ... of its parts, 0 outside."""
    step = math.ceil(max(island.shape) / _FINE)  # necks are found on pixels so far apart
    small = np.pad(island[::step, ::step], 1)
    depth = ndimage.distance_transform_edt(small)  # half the width at every pixel
    cores = np.zeros(small.shape, dtype=np.int32)
    for number, core in enumerate(_cores(depth, small), 1):
        cores[core] = number
    if cores.max() < 2:
        return island.astype(np.int32)
    _, nearest = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    parts = cores[tuple(nearest)][1:-1, 1:-1].repeat(step, axis=0).repeat(step, axis=1)
    return parts[:island.shape[0], :island.shape[1]] * island


def _cores(depth: np.ndarray, inside: np.ndarray) -> list[np.ndarray]:
    """The parts of `inside` H x W bool that stand clear of one another as the depth H x W is flooded, as masks of their own."""
    for level in np.linspace(0, _NECK * (depth * inside).max(), _LEVELS)[1:]:
        parts, number = ndimage.label(inside & (depth > level))
        deepest = ndimage.maximum(depth, parts, np.arange(1, number + 1))
        clear = 1 + np.flatnonzero(_NECK * np.asarray(deepest) >= level)
        if len(clear) > 1:
            return [core for part in clear for core in _cores(depth, parts == part)]
    return [inside]


def instance_labels(label: Tensor, concepts: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """The labels of concepts, B x H x W -> those of the single things, and what these are called.

    Of several cats in any of the pictures, "cat 1" is the largest of each picture, and so on; a concept without things has one name, too.
    NOTHING where a concept has crumbs only, see `instances`.
    """
    found = [[instances((one == row).float()) for one in label] for row in range(len(concepts))]
    out = torch.full_like(label, NOTHING)
    names: list[str] = []
    for concept, pictures in zip(concepts, found):
        for b, things in enumerate(pictures):
            for number, (box, own) in enumerate(things, len(names)):
                out[b, box["y"]:box["y"] + box["height"], box["x"]:box["x"] + box["width"]][own] = number
        count = max(map(len, pictures))
        names += [f"{concept} {number}" for number in range(1, count + 1)] if count > 1 else [concept]
    return out, tuple(names)


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
    return (peaks(own * wins, count, above=0.05), peaks(rival * ~wins, count, above=0.05), wins.float())
