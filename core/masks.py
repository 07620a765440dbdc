"""Saliency -> masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .saliency import Saliency

METHODS = ("mean", "otsu", "percentile", "absolute", "argmax", "soft")
_CRUMB = 1 / 255  # less than that, left over outside a mask, would become a segment of its own downstream
REFINE_RADIUS = 16  # pixels: as far as one token reaches


@dataclass(frozen=True)
class Shaping:
    """What is done to a mask after the threshold, in this order. Lengths are pixels.

    min_area: smaller islands go. fill_holes: enclosed holes are filled. grow: the edge moves out,
    or in when negative. invert: everything but that. feather: the edge fades over this many pixels
    to either side and nowhere else; the picture's own frame does not fade.
    """

    grow: int = 0
    feather: int = 0
    fill_holes: bool = False
    min_area: int = 0
    invert: bool = False


def soft_masks(saliency: Saliency) -> Tensor:
    """Every concept's map on the picture's pixels: B x C x H x W float32 in 0..1."""
    return saliency.pixels(saliency.maps)


def rows_of(saliency: Saliency, concept: str) -> list[int]:
    """The rows of a concept, or of several joined by "+"; empty for the first. Raises ValueError for an unknown one."""
    if concept.strip().casefold() in map(str.casefold, saliency.concepts):
        return [saliency.index(concept)]  # a name that holds a "+" itself
    return [saliency.index(name) for name in concept.split("+")]


def mask(saliency: Saliency, concept: str = "", method: str = "mean", threshold: float = 0.5, shaping: Shaping = Shaping(),
         image: Tensor | None = None) -> Tensor:
    """The mask of one concept, B x H x W float32 in 0..1, exactly 0 outside and exactly 1 inside its edge.

    concept: its name, or several joined by "+" for their union; empty for the first. method: "mean",
    above the map's own mean (the paper's); "otsu", above Otsu's threshold; "percentile", the strongest
    1 - threshold of all pixels; "absolute", above threshold; "argmax", above every other concept and
    every contrast concept; "soft", the map itself. image: B x H x W x 3 in 0..1; the maps' edges then
    follow the picture's. Raises ValueError for an unknown concept or method, or an image of another size.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}', expected one of {', '.join(METHODS)}")
    rows = rows_of(saliency, concept)
    if method == "argmax":
        others = [row for row in range(len(saliency.concepts)) if row not in rows]
        rivals = torch.cat((saliency.maps[:, others], saliency.contrast_maps), dim=1)
        groups = (saliency.maps[:, rows], rivals if rivals.shape[1] else torch.zeros_like(saliency.maps[:, :1]))
        maps = torch.stack([saliency.pixels(group).amax(dim=1) for group in groups], dim=1)
    else:
        maps = saliency.pixels(saliency.maps[:, rows])
    if image is not None:
        maps = refine(maps, image)
    if method == "argmax":
        inside = maps[:, 0] > maps[:, 1]
    elif method == "soft":
        soft = maps.amax(dim=1)
        soft = torch.where(soft < _CRUMB, 0.0, soft)
        return 1 - soft if shaping.invert else soft
    else:
        inside = (maps > limits(maps, method, threshold)).any(dim=1)
    return torch.stack([shape(one, shaping) for one in inside])


def limits(maps: Tensor, method: str, threshold: float) -> Tensor:
    """Each map's own threshold, B x C x 1 x 1."""
    if method == "mean":
        return maps.mean(dim=(2, 3), keepdim=True)
    flat = maps.flatten(0, 1)
    if method == "otsu":
        from kornia.filters import otsu_threshold

        values = torch.stack([otsu_threshold(one[None])[1].flatten()[0] for one in flat])
    elif method == "percentile":
        values = torch.from_numpy(np.quantile(flat.flatten(1).numpy(), threshold, axis=1))
    else:
        values = torch.full((len(flat),), threshold)
    return values.to(maps).view(*maps.shape[:2], 1, 1)


def refine(maps: Tensor, image: Tensor) -> Tensor:
    """Maps B x C x H x W whose edges follow those of the picture(s) B x H x W x 3 (guided filter, He et al. 2010)."""
    from kornia.filters import guided_blur

    if tuple(image.shape[1:3]) != tuple(maps.shape[2:]) or len(image) not in (1, len(maps)):
        raise ValueError(f"'image' is {len(image)} picture(s) of {image.shape[2]} x {image.shape[1]} pixels, but the saliency is of "
                         f"{len(maps)} of {maps.shape[3]} x {maps.shape[2]}. Connect the picture that the saliency was made from.")
    if min(maps.shape[2:]) <= 2 * REFINE_RADIUS:
        return maps  # smaller than the filter itself
    guide = image[..., :3].movedim(-1, 1).to(maps).expand(len(maps), -1, -1, -1)
    subsample = max(1, min(maps.shape[2:]) // 256)
    return guided_blur(guide, maps, 2 * REFINE_RADIUS + 1, 1e-3, border_type="replicate", subsample=subsample).clamp(0, 1)


def shape(inside: Tensor, shaping: Shaping) -> Tensor:
    """One mask H x W bool -> H x W float32."""
    inside = inside.numpy()
    if shaping.min_area > 0:
        islands, count = ndimage.label(inside)
        sizes = np.bincount(islands.ravel(), minlength=count + 1)
        inside = inside & (sizes >= shaping.min_area)[islands]
    if shaping.fill_holes:
        inside = ndimage.binary_fill_holes(inside)
    if shaping.grow > 0 and inside.any():
        inside = ndimage.distance_transform_edt(~inside) <= shaping.grow
    if shaping.grow < 0 and not inside.all():
        inside = ndimage.distance_transform_edt(inside) > -shaping.grow
    if shaping.invert:
        inside = ~inside
    mask = torch.from_numpy(inside.astype(np.float32))
    return feather(mask, shaping.feather) if shaping.feather > 0 else mask


def feather(mask: Tensor, width: int) -> Tensor:
    """Blur a mask H x W so that it is exactly 0 and 1 beyond `width` pixels from its edge."""
    from kornia.filters import gaussian_blur2d

    size = 2 * width + 1
    tall, wide = (min(size, 2 * side - 1) for side in mask.shape)  # a border cannot be wider than the picture
    blurred = gaussian_blur2d(mask[None, None], (tall, wide), (width / 3, width / 3), border_type="replicate")[0, 0]
    return torch.where(blurred < _CRUMB, 0.0, torch.where(blurred > 1 - _CRUMB, 1.0, blurred))
