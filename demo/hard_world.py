"""Scenes that are hard to tell apart, for measuring only: nothing is ever trained on them.

They are drawn by world.py from its own things and grounds. The kind goes by the seed:

- twins: two of one thing, and one of another
- look-alikes: two things, the second in the colours of the first
- thin: two things, squeezed to a quarter of their width or height
- cut: two things that the picture's frame cuts
- many: one big thing, and four small ones of another
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import GROUNDS, THINGS, Scene, draw_ground, draw_thing, prompt_of

KINDS = ("twins", "look-alikes", "thin", "cut", "many")
_THIN = 0.25  # of the usual width or height: about two tokens


@dataclass(frozen=True)
class HardScene(Scene):
    """A Scene of one of KINDS. instances: (thing, H x W bool) of every single one, visible pixels only; `masks` hold their unions."""

    kind: str
    instances: tuple[tuple[str, np.ndarray], ...]


def make_hard_scene(seed: int, size: tuple[int, int] = (256, 256)) -> HardScene:
    """Draw the scene of `seed`; `size` is (height, width) in pixels. The same arguments give the same scene."""
    rng, kind = np.random.default_rng([20261, seed]), KINDS[seed % len(KINDS)]
    height, width = size
    side = min(size)
    ground = str(rng.choice(list(GROUNDS)))
    first, second = (str(thing) for thing in rng.choice(list(THINGS), size=2, replace=False))
    looks = {first: THINGS[first], second: THINGS[second]}
    drawn, radii = [first, second], rng.uniform((0.2, 0.2), (0.26, 0.26))
    if kind == "twins":
        drawn, radii = [first, first, second], rng.uniform(0.16, 0.21, size=3)
    elif kind == "look-alikes":
        looks[second] = _in_colours_of(THINGS[first], THINGS[second])
    elif kind == "thin":
        looks, radii = {thing: _squeezed(shapes, upright=bool(rng.integers(2))) for thing, shapes in looks.items()}, radii * 1.2
    elif kind == "many":
        drawn, radii = [first, *[second] * 4], np.array([0.28, *rng.uniform(0.085, 0.11, size=4)])
    picture, owner = draw_ground(rng, ground, width, height), np.zeros(size, dtype=np.int8)
    for index, (thing, (cx, cy, radius)) in enumerate(zip(drawn, _places(rng, radii * side, width, height, cut=kind == "cut")), 1):
        layer = draw_thing(rng, looks[thing], cx, cy, radius, width, height)
        picture.paste(layer, mask=layer.getchannel("A"))
        owner[np.asarray(layer.getchannel("A")) >= 128] = index
    instances = tuple((thing, owner == index) for index, thing in enumerate(drawn, 1))
    masks = {thing: np.any([mask for name, mask in instances if name == thing], axis=0) for thing in (first, second)}
    return HardScene(np.asarray(picture), prompt_of((first, second), ground), {**masks, ground: owner == 0}, (first, second), ground,
                     kind, instances)


def _places(rng, radii, width, height, cut):
    """Centres and radii in pixels that hardly overlap; cut: with their middles near the picture's frame, inside."""
    while True:
        places = [(*rng.uniform(radius, (width - radius, height - radius)), radius) for radius in radii]
        if cut:
            places = [_at_the_frame(rng, *place, width, height) for place in places]
        if all(np.hypot(a[0] - b[0], a[1] - b[1]) > 0.95 * (a[2] + b[2]) for i, a in enumerate(places) for b in places[:i]):
            return places


def _at_the_frame(rng, x, y, radius, width, height):
    inside = rng.uniform(0, 0.4) * radius
    return ((inside, y), (width - inside, y), (x, inside), (x, height - inside))[rng.integers(4)] + (radius,)


def _in_colours_of(other, shapes):
    """The shapes of a thing in the other's colours, the first in its first: the two have their most seen colours in common."""
    theirs = list(dict.fromkeys(colour for _, colour, _ in sorted(other, key=_extent, reverse=True)))
    own = list(dict.fromkeys(colour for _, colour, _ in sorted(shapes, key=_extent, reverse=True)))
    return [(shape, theirs[min(own.index(colour), len(theirs) - 1)], numbers) for shape, colour, numbers in shapes]


def _extent(shape):
    """The area of the box around a shape."""
    _, _, numbers = shape
    return (max(numbers[::2]) - min(numbers[::2])) * (max(numbers[1::2]) - min(numbers[1::2]))


def _squeezed(shapes, upright):
    by = (_THIN, 1) if upright else (1, _THIN)
    return [(shape, colour, tuple(value * by[i % 2] for i, value in enumerate(numbers))) for shape, colour, numbers in shapes]
