"""The tiny world: pictures drawn from a seed, with a caption and an exact mask for every word.

One to three *things*, each with a look of its own, stand on one *ground*. A thing is a list of
shapes in its own frame (x to the right, y down, both from -1 to 1), so that the whole world can
be read, and extended, in the two tables below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# (shape, colour, coordinates): "oval" and "box" take x0, y0, x1, y1; "poly" takes its corners.
THINGS: dict[str, list[tuple[str, str, tuple[float, ...]]]] = {
    "tree": [("box", "#6b4423", (-0.16, 0.2, 0.16, 1)), ("oval", "#1f7a33", (-0.8, -1, 0.8, 0.45)),
             ("oval", "#2f9a48", (-0.5, -0.85, 0.2, -0.1))],
    "person": [("box", "#27408b", (-0.32, 0.3, -0.04, 1)), ("box", "#27408b", (0.04, 0.3, 0.32, 1)),
               ("box", "#c62828", (-0.6, -0.35, 0.6, 0.35)), ("oval", "#e8b48a", (-0.32, -1, 0.32, -0.36))],
    "face": [("oval", "#f2c79c", (-0.85, -1, 0.85, 1)), ("oval", "#222222", (-0.5, -0.4, -0.2, -0.05)),
             ("oval", "#222222", (0.2, -0.4, 0.5, -0.05)), ("box", "#b03a3a", (-0.4, 0.4, 0.4, 0.58))],
    "dragon": [("poly", "#5b1a8b", (-0.1, 0.1, -0.9, -1, 0.5, -0.6)), ("oval", "#7b2cbf", (-0.7, -0.3, 0.6, 0.8)),
               ("poly", "#7b2cbf", (-0.5, 0.3, -1, 0.95, -0.2, 0.75)), ("oval", "#7b2cbf", (0.3, -0.75, 1, -0.05)),
               ("poly", "#ff9500", (0.95, -0.45, 1, -0.1, 0.7, -0.15)), ("oval", "#ffffff", (0.55, -0.6, 0.75, -0.4))],
    "cat": [("poly", "#e07b1a", (-0.8, -1, -0.75, 0, -0.1, -0.6)), ("poly", "#e07b1a", (0.8, -1, 0.75, 0, 0.1, -0.6)),
            ("oval", "#f08c28", (-0.85, -0.7, 0.85, 0.9)), ("oval", "#1d4d1d", (-0.5, -0.2, -0.2, 0.2)),
            ("oval", "#1d4d1d", (0.2, -0.2, 0.5, 0.2)), ("poly", "#ffb6c1", (-0.15, 0.3, 0.15, 0.3, 0, 0.5))],
    "fish": [("poly", "#0f8f9f", (0.35, 0, 1, -0.65, 1, 0.65)), ("oval", "#16b8c8", (-1, -0.55, 0.6, 0.55)),
             ("oval", "#ffffff", (-0.75, -0.3, -0.45, 0)), ("oval", "#101010", (-0.68, -0.22, -0.54, -0.08))],
    "house": [("box", "#d9c9a3", (-0.8, -0.15, 0.8, 1)), ("poly", "#8f2d1f", (-1, -0.1, 0, -1, 1, -0.1)),
              ("box", "#5a3a22", (-0.2, 0.35, 0.2, 1)), ("box", "#6ec6ff", (0.35, 0.15, 0.65, 0.45))],
    "car": [("poly", "#c2c9d1", (-0.55, -0.05, -0.3, -0.6, 0.35, -0.6, 0.65, -0.05)),
            ("box", "#e3122b", (-1, -0.1, 1, 0.4)), ("oval", "#151515", (-0.75, 0.15, -0.25, 0.65)),
            ("oval", "#151515", (0.25, 0.15, 0.75, 0.65))],
    "boat": [("poly", "#7a4a1e", (-1, 0.35, 1, 0.35, 0.6, 0.95, -0.6, 0.95)), ("box", "#3d2712", (-0.06, -1, 0.06, 0.4)),
             ("poly", "#fafafa", (0.1, -0.95, 0.1, 0.2, 0.85, 0.2)), ("poly", "#e8e8ff", (-0.1, -0.7, -0.1, 0.2, -0.7, 0.2))],
    "sun": [("poly", "#ffb300", (0, -1, 0.25, -0.25, 1, 0, 0.25, 0.25, 0, 1, -0.25, 0.25, -1, 0, -0.25, -0.25)),
            ("poly", "#ffb300", (0.7, -0.7, 0.35, 0, 0.7, 0.7, 0, 0.35, -0.7, 0.7, -0.35, 0, -0.7, -0.7, 0, -0.35)),
            ("oval", "#ffe135", (-0.6, -0.6, 0.6, 0.6))],
    "moon": [("oval", "#b9bcc9", (-0.9, -0.9, 0.9, 0.9)), ("oval", "#8f93a5", (-0.5, -0.55, 0, -0.05)),
             ("oval", "#8f93a5", (0.1, 0.1, 0.5, 0.5)), ("oval", "#8f93a5", (-0.4, 0.35, -0.1, 0.65))],
    "flower": [("box", "#2e7d32", (-0.08, 0, 0.08, 1)), ("oval", "#ff5fa2", (-0.75, -0.65, 0, 0.1)),
               ("oval", "#ff5fa2", (0, -0.65, 0.75, 0.1)), ("oval", "#ff5fa2", (-0.38, -1, 0.38, -0.3)),
               ("oval", "#ff5fa2", (-0.38, -0.25, 0.38, 0.45)), ("oval", "#ffd400", (-0.28, -0.55, 0.28, 0))],
    "apple": [("oval", "#76b82a", (-0.85, -0.6, 0.3, 1)), ("oval", "#76b82a", (-0.3, -0.6, 0.85, 1)),
              ("box", "#4a2f14", (-0.07, -1, 0.07, -0.4)), ("oval", "#c6ee7a", (-0.55, -0.3, -0.25, 0.15))],
    "balloon": [("poly", "#1e40ff", (0, 0.5, -0.2, 0.75, 0.2, 0.75)), ("box", "#f5f5f5", (-0.04, 0.75, 0.04, 1)),
                ("oval", "#2b59ff", (-0.7, -1, 0.7, 0.6)), ("oval", "#a9c0ff", (-0.4, -0.75, -0.1, -0.3))],
    "mushroom": [("box", "#f3ead7", (-0.3, 0, 0.3, 1)), ("poly", "#b5122e", (-1, 0.1, -0.6, -0.8, 0, -1, 0.6, -0.8, 1, 0.1)),
                 ("oval", "#ffffff", (-0.55, -0.6, -0.2, -0.25)), ("oval", "#ffffff", (0.15, -0.75, 0.5, -0.4))],
    "robot": [("box", "#4e5d6c", (-0.75, 0.1, 0.75, 1)), ("box", "#8fa3b5", (-0.5, -0.75, 0.5, 0.1)),
              ("box", "#39ff14", (-0.3, -0.5, -0.1, -0.25)), ("box", "#39ff14", (0.1, -0.5, 0.3, -0.25)),
              ("box", "#ff3030", (-0.2, 0.4, 0.2, 0.7))],
}

# ground: (base colour, colour of the pattern, pattern)
GROUNDS: dict[str, tuple[str, str, str]] = {
    "grass": ("#63b344", "#4c9a30", "blades"),
    "floor": ("#b98d5e", "#94693d", "planks"),
    "sand": ("#ecd9a0", "#d8bf7c", "dots"),
    "water": ("#2f7fc1", "#63a8dd", "waves"),
    "sky": ("#a8dcf7", "#f4fbff", "clouds"),
    "snow": ("#f4f6fa", "#d5deea", "dots"),
    "brick": ("#a8533c", "#d9c4b4", "bricks"),
    "night": ("#14183a", "#e9e4a8", "stars"),
}

CONTRAST = ", ".join(GROUNDS)  # what takes the patches of a scene that belong to no thing
_NAMED = ("{things} on {ground}", "{things} on {ground} background", "{things} , {ground} background",
          "a picture of {things} on {ground}")
_UNNAMED = ("{things} on background", "{things} , background", "a picture of {things} on background")
_OVERSAMPLING = 2  # shapes are drawn this much larger and reduced, for smooth edges


@dataclass(frozen=True)
class Scene:
    """One picture with what is known about it.

    image: H x W x 3 uint8; masks: word -> H x W bool, visible pixels only, disjoint, their union is the picture.
    """

    image: np.ndarray
    caption: str
    masks: dict[str, np.ndarray]
    things: tuple[str, ...]
    ground: str


def vocabulary() -> list[str]:
    """Every word a caption can hold, in a fixed order."""
    glue = ["a", "an", "and", "on", "of", ",", "left", "right", "picture", "background"]
    return glue + list(THINGS) + list(GROUNDS)


def make_scene(seed: int, size: tuple[int, int] = (256, 256), posed: bool = False, counts: Sequence[float] | None = None,
               nameless: float = 0.35) -> Scene:
    """Draw the scene of `seed`; `size` is (height, width) in pixels. The same arguments give the same scene.

    posed: things are as large as fit, face one way, in even light, with their middles on a grid of an eighth of the side.
    counts: odds of one, two and three things. nameless: share of sentences that call the ground just "background".
    """
    rng = np.random.default_rng([20260, seed])
    height, width = size
    ground = str(rng.choice(list(GROUNDS)))
    count = int(rng.choice([1, 2, 3], p=counts or ([0.5, 0.4, 0.1] if posed else [0.35, 0.4, 0.25])))
    things = [str(t) for t in rng.choice(list(THINGS), size=count, replace=False)]
    picture = draw_ground(rng, ground, width, height, posed)
    owner = np.zeros((height, width), dtype=np.int8)  # 0 is the ground, i + 1 is things[i]
    centres = []
    for index, (thing, (cx, cy, radius)) in enumerate(zip(things, _places(rng, count, width, height, posed))):
        layer = draw_thing(rng, THINGS[thing], cx, cy, radius, width, height, posed)
        picture.paste(layer, mask=layer.getchannel("A"))
        owner[np.asarray(layer.getchannel("A")) >= 128] = index + 1
        centres.append(cx)
    masks = {thing: owner == index + 1 for index, thing in enumerate(things)}
    masks[ground] = owner == 0
    caption = _caption(rng, things, centres, ground, nameless)
    return Scene(np.asarray(picture), caption, masks, tuple(things), ground)


def outline(thing: str, radius: int = 64) -> np.ndarray:
    """The shape of a posed thing, H x W bool, cut at its own edges."""
    middle, side = 1.5 * radius, 3 * radius
    layer = draw_thing(None, THINGS[thing], middle, middle, radius, side, side, posed=True)
    shape = Image.fromarray(np.asarray(layer.getchannel("A")) >= 128)
    return np.asarray(shape.crop(shape.getbbox()))


def prompt_of(things: Sequence[str], ground: str) -> str:
    """The plainest caption: "a dragon and a house on grass"."""
    return _NAMED[0].format(things=" and ".join(map(_with_article, things)), ground=ground)


def _places(rng, count, width, height, posed):
    """Centres and radii in pixels that hardly overlap; wider than high pictures spread sideways."""
    side = min(width, height)
    low, high = {1: (0.24, 0.36), 2: (0.19, 0.27), 3: (0.16, 0.22)}[count]
    if posed:
        low = high = {1: 0.375, 2: 0.25, 3: 0.1875}[count]
    while True:
        places = []
        for _ in range(count):
            radius = rng.uniform(low, high) * side
            centre = rng.uniform(radius, (width - radius, height - radius))
            if posed:
                centre = np.round(centre / (side / 8)) * (side / 8)
            places.append((*centre, radius))
        apart = all(np.hypot(a[0] - b[0], a[1] - b[1]) > 0.95 * (a[2] + b[2])
                    for i, a in enumerate(places) for b in places[:i])
        if apart:
            return places


def draw_thing(rng, shapes, cx, cy, radius, width, height, posed=False):
    """Shapes, as THINGS lists them, in a picture of their own without a ground (RGBA)."""
    k = _OVERSAMPLING
    layer = Image.new("RGBA", (width * k, height * k))
    draw = ImageDraw.Draw(layer)
    flip, stretch, light = (1, 1, 1) if posed else (rng.choice([-1, 1]), rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1))
    for shape, colour, numbers in shapes:
        points = [((cx + flip * x * radius * stretch) * k, (cy + y * radius / stretch) * k)
                  for x, y in zip(numbers[::2], numbers[1::2])]
        fill = _lit(colour, light)
        if shape == "poly":
            draw.polygon(points, fill=fill)
        else:
            xs, ys = zip(*points)
            corners = (min(xs), min(ys), max(xs), max(ys))
            (draw.ellipse if shape == "oval" else draw.rectangle)(corners, fill=fill)
    return layer.reduce(k)


def draw_ground(rng, ground, width, height, posed=False):
    """A ground by itself (RGB)."""
    base, mark, pattern = GROUNDS[ground]
    light = 1 if posed else rng.uniform(0.92, 1.08)
    picture = Image.new("RGB", (width, height), _lit(base, light))
    draw = ImageDraw.Draw(picture)
    fill = _lit(mark, light)
    area = width * height / 256**2
    if pattern == "planks":
        for y in range(int(rng.integers(0, 24)), height, 24):
            draw.line((0, y, width, y), fill=fill, width=2)
    elif pattern == "bricks":
        shift = int(rng.integers(0, 16))
        for row, y in enumerate(range(-shift, height, 16)):
            draw.line((0, y, width, y), fill=fill, width=2)
            for x in range(-shift + 16 * (row % 2), width, 32):
                draw.line((x, y, x, y + 16), fill=fill, width=2)
    elif pattern == "waves":
        for y in range(int(rng.integers(0, 20)), height, 20):
            for x in range(-20 + int(rng.integers(0, 20)), width, 40):
                draw.arc((x, y, x + 20, y + 12), 180, 360, fill=fill, width=2)
    else:
        amount, (w, h) = {"blades": (220, (1, 7)), "dots": (170, (2, 2)), "clouds": (7, (44, 18)), "stars": (70, (2, 2))}[pattern]
        for _ in range(int(amount * area)):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            draw.ellipse((x, y, x + w, y + h), fill=fill)
    return picture


def _caption(rng, things, centres, ground, nameless):
    """Mostly whole sentences; now and then a single word, as a concept is asked for, or a ground that is just "background"."""
    style = rng.uniform()
    if style < 0.1:
        return things[0] if style < 0.06 else ground if style < 0.09 else "background"
    order = rng.permutation(len(things))
    if len(things) == 2 and rng.uniform() < 0.4:
        first, second = order
        side = "left" if centres[first] < centres[second] else "right"
        phrase = f"{_with_article(things[first])} {side} of {_with_article(things[second])}"
    else:
        phrase = " and ".join(_with_article(things[i]) for i in order)
    templates = _UNNAMED if rng.uniform() < nameless else _NAMED
    return str(rng.choice(templates)).format(things=phrase, ground=ground)


def _with_article(word):
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _lit(colour, light):
    channels = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
    return tuple(min(255, int(c * light)) for c in channels)
