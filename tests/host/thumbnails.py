"""The pictures on the cards of ComfyUI's template browser, made from what the workflows show. See test_workflows.py."""

from __future__ import annotations

from PIL import Image, ImageDraw

SIDE, GAP, BACK = 512, 6, (24, 24, 28)


def thumbnail(pictures: list[Image.Image]) -> Image.Image:
    """One picture fills the card; of two each takes half, cropped to its middle; of three the last takes the right two thirds;
    four make a square."""
    canvas = Image.new("RGB", (SIDE, SIDE), BACK)
    half, third = (SIDE - GAP) // 2, (SIDE - 2 * GAP) // 3
    places = {1: [(0, 0, SIDE, SIDE)],
              2: [(0, 0, half, SIDE), (half + GAP, 0, half, SIDE)],
              3: [(0, 0, half, half), (half + GAP, 0, half, half), (0, half + GAP, SIDE, half)],
              4: [(x, y, half, half) for y in (0, half + GAP) for x in (0, half + GAP)]}[len(pictures)]
    for picture, (x, y, width, height) in zip(pictures, places):
        canvas.paste(cover(picture, width, height), (x, y))
    return canvas


def cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture's middle in this size: enlarged until both sides are filled, the rest cut off."""
    scale = max(width / picture.width, height / picture.height)
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left, top = (large.width - width) // 2, (large.height - height) // 2
    return large.crop((left, top, left + width, top + height))


def with_points(picture: Image.Image, inside: list[dict], outside: list[dict]) -> Image.Image:
    """Points as dots: green those inside, red those outside."""
    out = picture.copy()
    radius = max(3, picture.width // 40)
    for points, colour in ((inside, "#39ff14"), (outside, "#ff3030")):
        for p in points:
            ImageDraw.Draw(out).ellipse((p["x"] - radius, p["y"] - radius, p["x"] + radius, p["y"] + radius), fill=colour, outline="black", width=2)
    return out
