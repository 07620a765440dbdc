"""What a person sees: heatmaps, overlays and labelled tiles. Pictures are B x H x W x 3 float32 in 0..1, as in ComfyUI."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import max_pool2d

from .saliency import Saliency

_PREVIEWED = 8  # frames of a clip
_LINE = (0.15, 1.0, 0.55)  # of a mask's edge
COLORMAPS = ("plasma", "viridis", "cividis", "hot", "bone", "turbo")  # kornia's; the first is the paper's


@lru_cache(maxsize=len(COLORMAPS))
def _colours(colormap: str) -> Tensor:
    """256 x 3."""
    from kornia.color import ColorMap

    return ColorMap(base=colormap, num_colors=256).colors.T.contiguous()


@lru_cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def heatmaps(maps: Tensor, colormap: str = COLORMAPS[0]) -> Tensor:
    """Maps ... x H x W in 0..1 -> colours ... x H x W x 3. The scale is absolute: 0 is the first colour, 1 the last."""
    return _colours(colormap)[(maps.clamp(0, 1) * 255).round().long()]


def overlay(image: Tensor, maps: Tensor, opacity: float = 0.8, colormap: str = COLORMAPS[0]) -> Tensor:
    """The picture(s) B x H x W x 3 in grey, and over them the heat of maps B x H x W, the more opaque the hotter."""
    image = image[..., :3]  # a fourth channel is transparency
    grey = (image @ image.new_tensor([0.299, 0.587, 0.114]))[..., None].expand_as(image)
    return torch.lerp(grey, heatmaps(maps, colormap).to(image), opacity * maps.clamp(0, 1).sqrt()[..., None])


def previewed(saliency: Saliency) -> list[int]:
    """Numbers of the pictures that are shown on a node: all, but of a clip a few frames, evenly from the first to the last."""
    frames = torch.linspace(0, saliency.frames - 1, min(saliency.frames, _PREVIEWED)).round().int().tolist()
    return [clip + frame for clip in range(0, len(saliency.maps), saliency.frames) for frame in frames]


def tiles(saliency: Saliency, maps: Tensor, image: Tensor | None = None) -> Tensor:
    """One labelled tile a concept, picture by picture, of those that are previewed: (B * C) x H' x W x 3. With an image, the heat
    lies over it.

    maps: B x C x H x W, as soft_masks gives them.
    """
    out = []
    for b in previewed(saliency):
        for c, heat in enumerate(maps[b]):
            if image is None:
                tile = heatmaps(heat)
            else:
                tile = overlay(image[b % len(image)][None].to(heat), heat[None])[0]
            out.append(label(tile, caption(saliency, b, c)))
    return torch.stack(out)


def mask_tiles(mask: Tensor, image: Tensor | None, captions: list[str]) -> Tensor:
    """Masks B x H x W, each under its caption: B x H' x W x 3. With pictures B x H x W x 3 the mask shows in them: in colour
    inside, dark and grey outside, with a bright line between; else white on black."""
    out = []
    for b, (one, text) in enumerate(zip(mask, captions)):
        if image is None:
            tile = one[..., None].expand(-1, -1, 3)
        else:
            picture = image[b % len(image)][..., :3].to(one)
            outside = (0.25 * picture @ picture.new_tensor([0.299, 0.587, 0.114]))[..., None].expand_as(picture)
            tile = torch.where(_outline(one)[..., None], picture.new_tensor(_LINE), torch.lerp(outside, picture, one[..., None]))
        out.append(label(tile, text))
    return torch.stack(out)


def _outline(mask: Tensor) -> Tensor:
    """The pixels H x W just outside of a mask's edge, in a line that can still be seen in a thumbnail."""
    width = max(1, round(min(mask.shape) / 200))
    grown = max_pool2d(mask[None], 2 * width + 1, stride=1, padding=width)[0]
    return (grown > 0.5) & (mask <= 0.5)


def caption(saliency: Saliency, picture: int, concept: int) -> str:
    """A concept's name and its presence, and which frame of a clip it is."""
    return f"{saliency.concepts[concept]}  {saliency.presence[picture, concept]:.2f}{frame_name(saliency, picture)}"


def frame_name(saliency: Saliency, picture: int) -> str:
    """Which frame of a clip a picture is, to be added to a caption; nothing where there is no clip."""
    return f"  frame {picture % saliency.frames + 1}" if saliency.frames > 1 else ""


def label(picture: Tensor, text: str) -> Tensor:
    """A picture H x W x 3 with a caption bar above it, large enough to be read among sixteen thumbnails on a node.

    Text too long for it is set smaller, and shortened where that is not enough.
    """
    height, width, _ = picture.shape
    largest, smallest = (max(12, round(min(height, width) / part)) for part in (9, 16))
    size = next((s for s in range(largest, smallest, -1) if _font(s).getlength(text) <= width - s), smallest)
    font = _font(size)
    while len(text) > 1 and font.getlength(text) > width - size:
        text = text[:-2] + "…"
    bar = Image.new("RGB", (width, round(largest * 1.6)), (24, 24, 28))  # of one height, so that tiles of a row line up
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


# The colour-blind-safe palette of Okabe and Ito, black left out
_PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_NOTHING = (0.16, 0.16, 0.16)  # of no concept


def segmentation(labels: Tensor, names: tuple[str, ...], legend: bool = True) -> Tensor:
    """Label pictures B x H x W (negative: no concept, drawn grey) -> B x H x W x 3, with a legend of the names below."""
    colours = torch.tensor([ImageColor.getrgb(_PALETTE[i % len(_PALETTE)]) for i in range(len(names))]) / 255
    out = torch.cat((colours, torch.tensor([_NOTHING])))[labels.clamp(min=-1)]
    return with_legend(out, names, colours) if legend else out


def with_legend(pictures: Tensor, names: tuple[str, ...], colours: Tensor) -> Tensor:
    """Pictures B x H x W x 3 with a strip of colour keys (C x 3) and names below them, in as many lines as it takes."""
    _, height, width, _ = pictures.shape
    size = max(12, round(min(height, width) / 24))
    font, gap = _font(size), size // 2
    lines: list[list[tuple[float, str, tuple[int, ...]]]] = [[]]
    x: float = gap
    for name, colour in zip(names, colours):
        while len(name) > 1 and font.getlength(name) > width - 3 * size:
            name = name[:-2] + "…"
        needed = size + gap + font.getlength(name) + 2 * gap
        if lines[-1] and x + needed > width:
            lines.append([])
            x = gap
        lines[-1].append((x, name, tuple((colour * 255).round().int().tolist())))
        x += needed
    strip = Image.new("RGB", (width, round(len(lines) * size * 1.6 + gap)), (24, 24, 28))
    draw = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        y = round(gap / 2 + (row + 0.5) * size * 1.6)
        for x, name, colour in line:
            draw.rectangle((x, y - size / 2, x + size, y + size / 2), fill=colour)
            draw.text((x + size + gap, y), name, font=font, fill=(240, 240, 240), anchor="lm")
    return torch.cat((pictures, from_pil(strip).to(pictures).expand(len(pictures), -1, -1, -1)), dim=1)
