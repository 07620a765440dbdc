"""The registry's icon and banner: a scene of the tiny world, part of it as it is, part of it as heat.

    python -m concept_saliency.demo.draw_icon [--out demo]

The heat is drawn from exact masks, not by a model: a sign for what the pack does, not a result of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from ..core import render
from .world import THINGS, draw_ground, draw_thing

ICON, BANNER = (400, 400), (1260, 540)  # width, height; the registry asks for a square of at most 400 and for 21:9
TITLE, LINES = "Concept Saliency", ("See where Flux sees", "each word you type,", "and turn it into a mask.")
LEAN = 0.16  # how far a cut leans, as a share of the height


def scene(things: dict[str, tuple[float, float, float]], size: tuple[int, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Things at (x, y, radius) in pixels on grass -> the picture H x W x 3 in 0..1, and each thing's mask H x W."""
    rng = np.random.default_rng(3)
    picture, masks = draw_ground(rng, "grass", *size), {}
    for thing, place in things.items():
        layer = draw_thing(rng, THINGS[thing], *place, *size)
        picture.paste(layer, mask=layer.getchannel("A"))
        masks[thing] = np.asarray(layer.getchannel("A")) / 255
    return np.asarray(picture) / 255, masks


def heat(mask: np.ndarray) -> np.ndarray:
    """A mask H x W -> its heat H x W x 3 in 0..1, with an edge that fades as a real one does."""
    soft = gaussian_filter(mask, 0.014 * len(mask)) * 0.6 + gaussian_filter(mask, 0.05 * len(mask)) * 0.4
    return render.heatmaps(torch.from_numpy(0.06 + 0.94 * soft)).numpy()


def cut(left: np.ndarray, right: np.ndarray, x: float) -> np.ndarray:
    """Two pictures H x W x 3 side by side, with a leaning white line between them that crosses the middle at x pixels."""
    rows, columns = np.mgrid[:left.shape[0], :left.shape[1]]
    distance = (columns - x + LEAN * (rows - len(rows) / 2))[..., None]
    line = np.clip(2.5 + 0.006 * len(rows) - np.abs(distance), 0, 1)
    return np.where(distance < 0, left, right) * (1 - line) + line


def icon() -> Image.Image:
    picture, masks = scene({"cat": (200, 205, 165)}, ICON)
    return render.to_pil(torch.from_numpy(cut(picture, heat(masks["cat"]), 200)))


def banner() -> Image.Image:
    """The name; a picture; and the same picture as the heat of one word after the other."""
    width, height = BANNER[0] * 2 // 3, BANNER[1]
    middles = [width // 6, width // 2, width * 5 // 6]
    panels = []
    for middle, word in zip(middles, ("", "house", "cat")):
        picture, masks = scene({"house": (middle + 14, 145, 100), "cat": (middle - 14, 360, 92)}, (width, height))
        panels.append(heat(masks[word]) if word else picture)
    shown = cut(cut(panels[0], panels[1], width / 3), panels[2], width * 2 / 3)
    out = Image.new("RGB", BANNER, (13, 8, 60))
    out.paste(render.to_pil(torch.from_numpy(shown)), (BANNER[0] - width, 0))
    draw = ImageDraw.Draw(out)
    draw.text((36, 170), TITLE, font=ImageFont.load_default(46), fill="white")
    for i, line in enumerate(LINES):
        draw.text((36, 256 + 42 * i), line, font=ImageFont.load_default(29), fill="#dcd8f0")
    for middle, word in zip(middles, ("picture", "house", "cat")):
        draw.text((BANNER[0] - width + middle - 24, 500), word, font=ImageFont.load_default(34), fill="white", anchor="mm",
                  stroke_width=3, stroke_fill=(13, 8, 60))
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().out
    for name, picture in (("icon", icon()), ("banner", banner())):
        picture.save(folder / f"{name}.png", optimize=True)
