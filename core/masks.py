"""Saliency -> masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

from .concepts import rows_of
from .saliency import Saliency

METHODS = ("auto", "mean", "otsu", "percentile", "absolute", "argmax", "soft")
THRESHOLDED = ("percentile", "absolute")  # the methods that heed `threshold`
_CRUMB = 1 / 255  # less than that, left over outside a mask, would become a segment of its own downstream
_THERE = 0.01  # of all tokens: a concept that wins fewer is not there
_SPECK = 0.0005  # of the picture: smaller islands and holes are the picture's texture, which a refined edge follows too far
_REACH = 2  # tokens: how far a refined edge may lie from the map's
_FINENESS = 8  # steps to the radius: refinement is computed on pixels so far apart, and looks the same as on every one


@dataclass(frozen=True)
class Shaping:
    """What is done to a mask after the threshold, in this order. Lengths are pixels.

    min_area: smaller islands go. fill_holes: enclosed holes are filled. grow: the edge moves out,
    or in when negative. invert: everything but that. feather: the edge fades over this many pixels
    to either side and nowhere else; the picture's own frame does not fade. Raises ValueError for a negative min_area or feather.
    """

    grow: int = 0
    feather: int = 0
    fill_holes: bool = False
    min_area: int = 0
    invert: bool = False

    def __post_init__(self):
        for name in ("min_area", "feather"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more pixels")


def soft_masks(saliency: Saliency) -> Tensor:
    """Every concept's map on the picture's pixels: B x C x H x W float32 in 0..1."""
    return saliency.pixels(saliency.maps)


def mask(saliency: Saliency, concept: str = "", method: str = "auto", threshold: float = 0.5, shaping: Shaping = Shaping(),
         image: Tensor | None = None) -> Tensor:
    """The mask of one concept, B x H x W float32 in 0..1, exactly 0 outside and exactly 1 inside its edge.

    concept: its name or number, or several joined by "+" for their union; empty for the first. method: "auto", the
    islands above Otsu's threshold in which the concept beats every rival somewhere, of the map against the rivals that prevail
    (see against_prevailing), and nothing where it is not there; "mean", above the map's own mean (the paper's); "otsu", above
    Otsu's threshold; "percentile", the strongest 1 - threshold of all pixels; "absolute", above threshold; "argmax", above every
    other concept and every contrast concept; "soft", the map itself. image: B x H x W x 3 in 0..1; the maps' edges then
    follow the picture's. Raises ValueError for an unknown concept or method, or an image of another size.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}', expected one of {', '.join(METHODS)}")
    rows = rows_of(concept, saliency.concepts)
    maps = saliency.pixels((against_prevailing(saliency) if method == "auto" else saliency.maps)[:, rows])
    if method == "argmax":
        maps = torch.stack((maps.amax(dim=1), saliency.pixels(rivals(saliency, rows)).amax(dim=1)), dim=1)
    if image is not None:
        maps = refine(maps, image, token_size(saliency))
    if method == "soft":
        soft = maps.amax(dim=1)
        soft = torch.where(soft < _CRUMB, 0.0, soft)
        return 1 - soft if shaping.invert else soft
    if method == "argmax":
        inside = maps[:, 0] > maps[:, 1]
    elif method == "auto":
        inside = automatic(saliency, rows, maps)
    else:
        inside = (maps > limits(maps, method, threshold)).any(dim=1)
    if image is not None:
        inside = torch.stack([without_specks(one) for one in inside])
    return torch.stack([shape(one, shaping) for one in inside])


def rivals(saliency: Saliency, rows: list[int]) -> Tensor:
    """The maps of everything but `rows` on the token grid, B x R x h x w, R at least 1: zeros where there is none."""
    others = [row for row in range(len(saliency.concepts)) if row not in rows]
    maps = torch.cat((saliency.maps[:, others], saliency.contrast_maps), dim=1)
    return maps if maps.shape[1] else torch.zeros_like(saliency.maps[:, :1])


def against_prevailing(saliency: Saliency) -> Tensor:
    """The concepts' maps B x C x h x w, as if every contrast concept took part in the softmax only as much as it has of the picture.

    Contrast concepts are guesses: what has little of the picture has parts of things (a wall of a house for "floor") and no ground
    of its own. It counts by the square of its mean share, the largest counts in full.
    """
    if not saliency.contrast:
        return saliency.maps
    shares = saliency.contrast_maps.mean(dim=(2, 3), keepdim=True)
    doubts = 1 - (shares / shares.amax(dim=1, keepdim=True).clamp_min(1e-9)) ** 2
    left = 1 - (doubts * saliency.contrast_maps).sum(dim=1, keepdim=True)
    return (saliency.maps / left.clamp_min(1e-6)).clamp(max=1)


def automatic(saliency: Saliency, rows: list[int], maps: Tensor) -> Tensor:
    """The method "auto": maps B x R x H x W of `rows` on the picture's pixels, refined or not -> B x H x W bool."""
    against = rivals(saliency, rows)
    there = (saliency.maps[:, rows] > against.amax(dim=1, keepdim=True)).flatten(2).float().mean(dim=2) >= _THERE
    wins = saliency.pixels(saliency.maps[:, rows]) > saliency.pixels(against).amax(dim=1, keepdim=True)
    inside = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.bool)
    above = (maps > otsu(maps)) | (maps.amin(dim=(2, 3), keepdim=True) == maps.amax(dim=(2, 3), keepdim=True))
    for b, r in there.nonzero().tolist():
        islands, _ = ndimage.label(above[b, r].numpy())
        won = np.unique(islands[wins[b, r].numpy()])
        inside[b] |= torch.from_numpy(np.isin(islands, won[won > 0]))
    return inside


def limits(maps: Tensor, method: str, threshold: float) -> Tensor:
    """Each map's own threshold, B x C x 1 x 1."""
    if method == "mean":
        return maps.mean(dim=(2, 3), keepdim=True)
    if method == "otsu":
        return otsu(maps)
    if method == "percentile":
        return torch.from_numpy(np.quantile(maps.numpy(), threshold, axis=(2, 3), keepdims=True)).to(maps)
    return maps.new_full((*maps.shape[:2], 1, 1), threshold)


def otsu(maps: Tensor) -> Tensor:
    """Otsu's threshold of each map, B x C x 1 x 1; kornia's is one for all that it is given."""
    from kornia.filters import otsu_threshold

    values = torch.cat([otsu_threshold(one[None])[1] for one in maps.flatten(0, 1)])
    return values.view(*maps.shape[:2], 1, 1)


def token_size(saliency: Saliency) -> float:
    """How many of the picture's pixels a token covers, the mean of both sides."""
    return sum(outer / cells for outer, cells in zip(saliency.extent, saliency.maps.shape[2:])) / 2


def refine(maps: Tensor, image: Tensor, token: float) -> Tensor:
    """Maps B x C x H x W whose edges follow those of the picture(s) B x H x W x 3 (fast guided filter, He and Sun 2015).

    token: pixels that one value of the maps covered before they were enlarged.
    """
    from kornia.filters import guided_blur

    if tuple(image.shape[1:3]) != tuple(maps.shape[2:]) or len(image) not in (1, len(maps)):
        raise ValueError(f"'image' is {len(image)} picture(s) of {image.shape[2]} x {image.shape[1]} pixels, but the saliency is of "
                         f"{len(maps)} of {maps.shape[3]} x {maps.shape[2]}. Give the picture that the saliency was made from.")
    height, width = maps.shape[2:]
    step = max(1, round(_REACH * token / _FINENESS))
    radius = step * max(1, round(_REACH * token / step))
    if min(height, width) <= 2 * radius:
        return maps  # smaller than the filter itself
    margin = (0, -width % step, 0, -height % step)  # kornia wants sides that are multiples of the step
    picture = (image[..., :3] * 255).round() / 255  # as its file holds it: the same edges in memory, from the file and in the browser
    guide = pad(picture.movedim(-1, 1).to(maps), margin, mode="replicate").expand(len(maps), -1, -1, -1)
    refined = [guided_blur(guide, pad(one, margin, mode="replicate"), 2 * radius + 1, 1e-3, border_type="replicate", subsample=step)
               for one in maps.split(1, dim=1)]  # one by one: three times a map's memory each
    return torch.cat(refined, dim=1)[..., :height, :width].clamp(0, 1)


def without_specks(inside: Tensor) -> Tensor:
    """A refined mask H x W bool without islands and holes that are too small to be meant."""
    return torch.from_numpy(~large(~large(inside.numpy())))


def large(inside: np.ndarray, least: float | None = None) -> np.ndarray:
    """The islands of a mask H x W bool that have at least so many pixels; None: as many as no speck of a refined mask has."""
    islands, _ = ndimage.label(inside)
    return inside & (np.bincount(islands.ravel()) >= (_SPECK * inside.size if least is None else least))[islands]


def shape(given: Tensor, shaping: Shaping) -> Tensor:
    """One mask H x W bool -> H x W float32."""
    inside = given.numpy()
    if shaping.min_area:
        inside = large(inside, shaping.min_area)
    if shaping.fill_holes:
        inside = ndimage.binary_fill_holes(inside)
    if shaping.grow:
        inside = _moved(inside, shaping.grow)
    if shaping.invert:
        inside = ~inside
    mask = torch.from_numpy(inside.astype(np.float32))
    return feather(mask, shaping.feather) if shaping.feather else mask


def _moved(inside: np.ndarray, pixels: int) -> np.ndarray:
    """A mask H x W bool whose edge lies so far further out, or in where negative."""
    if pixels < 0:
        return ~_moved(~inside, -pixels)
    return ndimage.distance_transform_edt(~inside) <= pixels if inside.any() else inside


def feather(mask: Tensor, width: int) -> Tensor:
    """Blur a mask H x W so that it is exactly 0 and 1 beyond `width` pixels from its edge."""
    from kornia.filters import gaussian_blur2d

    blurred = gaussian_blur2d(mask[None, None], 2 * width + 1, (width / 3, width / 3), border_type="replicate").view_as(mask)
    return torch.where(blurred < _CRUMB, 0.0, torch.where(blurred > 1 - _CRUMB, 1.0, blurred))
