"""What a person sees: heatmaps, overlays and labelled tiles. Pictures are B x H x W x 3 float32 in 0..1, as in ComfyUI."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .saliency import Saliency

@lru_cache(maxsize=1)
def _colours() -> Tensor:
    """256 x 3, from dark blue to bright yellow: the paper's map, readable in grey and by colour-blind people."""
    from kornia.color import ColorMap

    return ColorMap(base="plasma", num_colors=256).colors.T.contiguous()


def heatmaps(maps: Tensor) -> Tensor:
    """Maps ... x H x W in 0..1 -> colours ... x H x W x 3. The scale is absolute: 0 is dark blue, 1 is yellow."""
    return _colours()[(maps.clamp(0, 1) * 255).round().long()]


def overlay(image: Tensor, maps: Tensor, opacity: float = 0.8) -> Tensor:
    """The picture(s) B x H x W x 3 in grey, and over them the heat of maps B x H x W, the more opaque the hotter."""
    grey = (image @ image.new_tensor([0.299, 0.587, 0.114]))[..., None].expand_as(image)
    return torch.lerp(grey, heatmaps(maps).to(image), opacity * maps.clamp(0, 1).sqrt()[..., None])


def tiles(saliency: Saliency, maps: Tensor, image: Tensor | None = None) -> Tensor:
    """One labelled tile a concept, picture by picture: (B * C) x H' x W x 3. With an image, the heat lies over it.

    maps: B x C x H x W, as soft_masks gives them.
    """
    out = []
    for b, of_picture in enumerate(maps):
        for c, heat in enumerate(of_picture):
            if image is None:
                tile = heatmaps(heat)
            else:
                tile = overlay(image[b % len(image)][None].to(heat), heat[None])[0]
            out.append(label(tile, f"{saliency.concepts[c]}  {saliency.presence[b, c]:.2f}"))
    return torch.stack(out)


def label(picture: Tensor, text: str) -> Tensor:
    """A picture H x W x 3 with a caption bar above it, sized to the picture; text too long for it is shortened."""
    height, width, _ = picture.shape
    size = max(12, round(min(height, width) / 16))
    font = ImageFont.load_default(size)
    while len(text) > 1 and font.getlength(text) > width - size:
        text = text[:-2] + "…"
    bar = Image.new("RGB", (width, round(size * 1.6)), (24, 24, 28))
    ImageDraw.Draw(bar).text((width / 2, bar.height / 2), text, font=font, fill=(240, 240, 240), anchor="mm")
    return torch.cat((from_pil(bar)[0].to(picture), picture))


def sheet(pictures: list[Tensor], columns: int, gap: int = 8) -> Tensor:
    """A contact sheet of equally wide pictures H x W x 3, row by row on white: H' x W' x 3."""
    rows = [pictures[i:i + columns] for i in range(0, len(pictures), columns)]
    width = columns * (pictures[0].shape[1] + gap) + gap
    heights = [max(p.shape[0] for p in row) + gap for row in rows]
    out = torch.ones(sum(heights) + gap, width, 3)
    y = gap
    for row, height in zip(rows, heights):
        for i, picture in enumerate(row):
            x = gap + i * (picture.shape[1] + gap)
            out[y:y + picture.shape[0], x:x + picture.shape[1]] = picture
        y += height
    return out


def to_pil(picture: Tensor) -> Image.Image:
    """H x W x 3 or H x W in 0..1 -> a PIL image."""
    return Image.fromarray((picture.clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8))


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image -> 1 x H x W x 3 in 0..1."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)[None]
