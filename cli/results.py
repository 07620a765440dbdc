"""What is written for one picture: the raw recording, heatmaps, overlays, masks, a contact sheet, and what JSON says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click
from torch import Tensor

from ..core import masks, render
from ..core.pictures import resized
from ..core.recording import Recording
from ..core.saliency import parse_layers, saliency
from .place import write_json

RECORDING, PICTURE, SHEET = "recording.safetensors", "picture.png", "contact_sheet.png"
LINE = "result.json"  # what JSON says of a picture
TILE = 512  # pixels, the longer side of a picture on the contact sheet


@dataclass(frozen=True)
class MapOptions:
    """How maps and masks are made of a recording; see core/saliency.py and core/masks.py."""

    layers: str = "auto"
    temperature: float = 0.0
    mask: str = "auto"
    threshold: float = 0.5

    def check(self, depth: int) -> None:
        """Raises ValueError for layers beyond the `depth` that are recorded."""
        parse_layers(self.layers, range(depth), range(depth))


def write(folder: Path, image: Tensor, recording: Recording, title: str, told: dict, look: MapOptions = MapOptions(),
          keep_picture: bool = False) -> dict:
    """Write everything about one picture, 1 x 3 x H x W in 0..1, into `folder`, in place of what stood there about another.

    The recording comes first, for it cannot be made again. title: the picture's caption on the contact sheet. told: what
    JSON is to say beside what it says of the results. keep_picture: write the picture too. Returns what JSON says, files
    as names within the folder; it stands in result.json as well. Raises ValueError for a look that does not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    recording.save(folder / RECORDING)
    image = image.permute(0, 2, 3, 1)
    about = told | {"width": image.shape[2], "height": image.shape[1]}
    if keep_picture:
        about["picture"] = save(image[0], folder / PICTURE)
    result = saliency(recording, look.layers, temperature=look.temperature)
    about |= {"recording": RECORDING, "contact_sheet": SHEET, "concepts": [
        {"concept": concept, "presence": round(float(presence), 4)} | {
            kind: f"{kind}_{i + 1}_{slug(concept)}.png" for kind in ("heatmap", "overlay", "mask")}
        for i, (concept, presence) in enumerate(zip(result.concepts, result.presence[0]))]}
    rows = []
    for i, concept in enumerate(about["concepts"]):
        heat = result.pixels(result.maps[:, i:i + 1])[:, 0]
        shown = render.heatmaps(heat[0])
        over = render.overlay(image, heat)[0]
        mask = masks.mask(result, concept["concept"], look.mask, look.threshold, image=image)[0]
        concept["share"] = round(float(mask.mean()), 4)
        caption = render.caption(result, 0, i)
        save(render.label(shown, caption), folder / concept["heatmap"])
        save(over, folder / concept["overlay"])
        save(mask, folder / concept["mask"])
        rows += [render.label(small(picture), text) for picture, text in (
            (image[0], title), (shown, caption), (over, f"{concept['concept']}: overlay"),
            (mask[..., None].expand(-1, -1, 3), f"{concept['concept']}: mask"))]
    save(render.sheet(rows, columns=4), folder / SHEET)
    write_json(folder / LINE, about)
    return about


def slug(concept: str) -> str:
    """A concept's name in a file's name."""
    return re.sub(r"[^0-9a-z]+", "_", concept.lower()).strip("_") or "concept"


def clear(folder: Path) -> None:
    """Take away the pictures that an earlier run wrote here; its concepts may have been others."""
    for pattern in ("heatmap_*.png", "overlay_*.png", "mask_*.png"):
        for file in folder.glob(pattern):
            file.unlink()


def files(about: dict) -> list[str]:
    """The names of the files that `write` wrote, less the picture's own."""
    shown = [concept[kind] for concept in about["concepts"] for kind in ("heatmap", "overlay", "mask")]
    return [*shown, about["contact_sheet"], about["recording"]]


def print_files(folder: Path, names: list[str]) -> None:
    for name in names:
        click.echo((folder / name).resolve())


def small(picture: Tensor) -> Tensor:
    """A picture H x W x 3, reduced to a contact sheet's tile."""
    height, width, _ = picture.shape
    scale = min(1.0, TILE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return resized(picture.movedim(-1, 0)[None], size)[0].movedim(0, -1)


def save(picture: Tensor, path: Path) -> str:
    render.to_pil(picture).save(path)
    return path.name
