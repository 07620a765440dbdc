"""The pictures of the nodes' help pages, made with the bundled tiny Flux: python -m concept_saliency.demo.draw_help

Run it again, and look at every picture, whenever the weights change.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..core import masks, regions, render
from ..core.concepts import DEFAULT_CONTRAST
from ..core.saliency import Saliency, saliency
from .codec import encode
from .pipeline import TinyFlux
from .world import make_scene

FOLDER = Path(__file__).parent.parent / "web" / "docs" / "pictures"
WIDTH = 900  # of a picture at most: a help page is narrow
# prompts and seeds that were chosen
PROMPT, CONCEPTS, SEED = "a dragon and a tree on snow", "dragon, tree, snow", 11
ERASED, ERASED_SEED = "a cat and a tree on grass", 11
SCENE = ("cat", "car", "sand")  # two things and a ground that the default contrast words do not name
DRAWN = {"a balloon and a tree on sand": 8, "a fish on water": 8, "a car on floor": 10, "a moon and a boat on night": 6,
         "a house and an apple on snow": 10, "a balloon on sky": 11}  # prompt -> seed


def main() -> None:
    tiny = TinyFlux()
    picture, recording = tiny.generate(PROMPT, CONCEPTS, seed=SEED)
    image = picture.movedim(1, -1)
    save("maps", [captioned(image, "picture"), *heat(saliency(recording), image)], 4)
    save("demo", [captioned(tiny.generate(prompt, "background", seed=seed)[0].movedim(1, -1), prompt) for prompt, seed in DRAWN.items()], 3)

    save("erase", erased(tiny), 4)

    drawn = next(scene for scene in map(make_scene, itertools.count(1_000_000)) if {*scene.things, scene.ground} == {*SCENE})
    image = torch.tensor(drawn.image)[None] / 255
    recording = tiny.record(image.movedim(-1, 1), ", ".join(SCENE))["output"]
    maps, seen = saliency(recording), captioned(image, "picture")
    save("image", [seen, *heat(maps, image)], 4)
    save("temperature", [first(saliency(recording, temperature=t), image, f"temperature {t:g}") for t in (0.5, 2.0, 8.0)], 3)
    contrasts = {"no contrast words": "", "the default ones": DEFAULT_CONTRAST, "car, sand": "car, sand"}
    save("contrast", [first(saliency(tiny.record(image.movedim(-1, 1), SCENE[0], contrast)["output"]), image, caption)
                      for caption, contrast in contrasts.items()], 3)
    save("methods", [seen, *(mask(maps, image, m, method=m, threshold=0.9 if m == "percentile" else 0.5) for m in masks.METHODS)], 4)
    save("shaping", [mask(maps, image, "refine off", refine=False), mask(maps, image, "refine on"),
                     mask(maps, image, "grow 10", shaping=masks.Shaping(grow=10)),
                     mask(maps, image, "feather 12", shaping=masks.Shaping(feather=12))], 4)
    save("overlay", [render.label(render.overlay(image, masks.soft_masks(maps)[:, 0], colormap=c)[0], c) for c in render.COLORMAPS], 3)
    labels = render.segmentation(regions.labels(maps, image), maps.concepts)[0]
    below = labels.new_full((labels.shape[0] - image.shape[1], *labels.shape[1:]), 0.1)  # as dark and high as the legend
    save("segmentation", [torch.cat((image[0], below)), labels], 2)
    save("sam3", [captioned(image, name, points_and_boxes(maps, row)) for row, name in enumerate(maps.concepts[:2])], 2)
    save("segs", [seen, *segments(maps, image)], 4)


def erased(tiny: TinyFlux) -> list[Tensor]:
    """A picture, the mask of its first word, that erased, and the same mask merely painted anew."""
    picture, recording = tiny.generate(ERASED, "cat, tree", seed=ERASED_SEED)
    image, latents = picture.movedim(1, -1), encode(tiny.codec, picture)
    found = masks.mask(saliency(recording), "cat", image=image, shaping=masks.Shaping(grow=6, fill_holes=True))
    inside = adaptive_max_pool2d(found, latents.shape[-2:]) > 0.5
    anew = [torch.where(found[..., None] > 0.5, tiny.inpaint(latents, inside, [0], erase=erase).movedim(1, -1), image)
            for erase in (True, False)]
    return [captioned(image, "picture"), render.mask_tiles(found, image, ["mask of cat"])[0], captioned(anew[0], "erased"),
            captioned(anew[1], "without this node")]


def heat(maps: Saliency, image: Tensor) -> list[Tensor]:
    """A tile for every concept."""
    return list(render.tiles(maps, masks.soft_masks(maps), image))


def first(maps: Saliency, image: Tensor, caption: str) -> Tensor:
    """The first concept's tile under another caption."""
    over = render.overlay(image, masks.soft_masks(maps)[:, 0])[0]
    return render.label(over, caption)


def mask(maps: Saliency, image: Tensor, caption: str, refine: bool = True, **settings) -> Tensor:
    """The first concept's mask in the picture."""
    return render.mask_tiles(masks.mask(maps, image=image if refine else None, **settings), image, [caption])[0]


def captioned(image: Tensor, caption: str, draw=lambda canvas: None) -> Tensor:
    """A picture 1 x H x W x 3, with something drawn on it, under its caption: H' x W x 3."""
    canvas = render.to_pil(image[0])
    draw(ImageDraw.Draw(canvas))
    return render.label(render.from_pil(canvas)[0], caption)


def points_and_boxes(maps: Saliency, row: int):
    """Draws what SAM3 Detect is given: positive points green, negative points red, boxes white."""
    positive, negative, wins = regions.point_prompts(maps, row)

    def draw(canvas: ImageDraw.ImageDraw) -> None:
        for box, _ in regions.islands(wins):
            canvas.rectangle((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]), outline="white", width=3)
        for points, colour in ((positive, "#00c853"), (negative, "#ff1744")):
            for point in points:
                canvas.circle((point["x"], point["y"]), 7, fill=colour, outline="white", width=2)

    return draw


def segments(maps: Saliency, image: Tensor) -> list[Tensor]:
    """The largest island of every concept, alone."""
    labels, found = regions.labels(maps, image)[0], []
    for row, name in enumerate(maps.concepts):
        box, island = regions.islands((labels == row).float())[0]
        alone = torch.zeros(1, *labels.shape)
        alone[0, box["y"]:box["y"] + box["height"], box["x"]:box["x"] + box["width"]] = island
        found.append(render.mask_tiles(alone, image, [name])[0])
    return found


def save(name: str, tiles: list[Tensor], columns: int) -> None:
    sheet = render.to_pil(render.sheet(tiles, columns))
    sheet.thumbnail((WIDTH, 2 * WIDTH), Image.LANCZOS)
    sheet.save(FOLDER / f"{name}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
