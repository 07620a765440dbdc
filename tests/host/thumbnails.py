"""The pictures on the cards of ComfyUI's template browser, made from what the workflows show. See test_workflows.py."""

from __future__ import annotations

from PIL import Image, ImageDraw

SIDE, GAP, BACK = 512, 6, (24, 24, 28)


def thumbnail(pictures: list[Image.Image], middle: float = 0.5) -> Image.Image:
    """Two pictures beside each other, each without its caption and cut to the part about `middle` (0 is its left edge, 1 its right);
    or four in a square, with their captions and at one scale. ComfyUI lays a badge over the left upper corner."""
    canvas, half = Image.new("RGB", (SIDE, SIDE), BACK), (SIDE - GAP) // 2
    tallest = max(picture.height for picture in pictures)
    for number, picture in enumerate(pictures):
        x, y = (half + GAP) * (number % 2), (half + GAP) * (number // 2)
        bar = picture.height - picture.width  # pictures here are square but for their captions
        if len(pictures) == 2:
            large = picture.crop((0, bar, picture.width, picture.height)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            left = min(max(0, round(middle * SIDE - half / 2)), SIDE - half)
            canvas.paste(large.crop((left, 0, left + half, SIDE)), (x, y))
        else:
            fitted = picture.resize((round(half * picture.width / tallest), round(half * picture.height / tallest)),
                                    Image.Resampling.LANCZOS)
            canvas.paste(fitted, (x + (half - fitted.width) // 2, y + half - fitted.height))
    return canvas


def with_points(picture: Image.Image, inside: list[dict], outside: list[dict]) -> Image.Image:
    """Points as dots: green those inside, red those outside."""
    out = picture.copy()
    radius = max(3, picture.width // 40)
    for points, colour in ((inside, "#39ff14"), (outside, "#ff3030")):
        for p in points:
            x, y = p["x"], p["y"]
            ImageDraw.Draw(out).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black", width=2)
    return out
