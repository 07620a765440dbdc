"""What is written for one picture: heatmaps, overlays, masks, a contact sheet, the raw recording, and what JSON says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click
from torch import Tensor

from ..core import masks, render
from ..core.recording import Recording
from ..core.saliency import saliency

RECORDING = "recording.safetensors"


@dataclass(frozen=True)
class Look:
    """How maps and masks are made of a recording; see core/saliency.py and core/masks.py."""

    layers: str = "auto"
    temperature: float = 0.0
    mask: str = "argmax"
    threshold: float = 0.5


def write(folder: Path, image: Tensor, recording: Recording, title: str, look: Look = Look(), keep_picture: bool = False) -> dict:
    """Write everything about one picture, 1 x 3 x H x W in 0..1, into `folder`, which is made only now.

    title: the picture's caption on the contact sheet. keep_picture: write the picture too. Returns what
    JSON says of it, files as names within the folder. Raises ValueError for a look that does not fit.
    """
    image = image.permute(0, 2, 3, 1)
    result = saliency(recording, look.layers, temperature=look.temperature)
    soft = masks.soft_masks(result)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"width": image.shape[2], "height": image.shape[1], "concepts": []}
    if keep_picture:
        about["picture"] = save(image[0], folder / "picture.png")
    rows = []
    for i, (concept, labelled, heat) in enumerate(zip(result.concepts, render.tiles(result, soft), soft[0])):
        name = f"{i + 1}_{re.sub(r'[^0-9a-z]+', '_', concept.lower()).strip('_') or 'concept'}"
        over = render.overlay(image, heat[None])[0]
        mask = masks.mask(result, concept, look.mask, look.threshold, image=image)[0]
        about["concepts"].append({
            "concept": concept, "presence": round(float(result.presence[0, i]), 4), "share": round(float(mask.mean()), 4),
            "heatmap": save(labelled, folder / f"heatmap_{name}.png"), "overlay": save(over, folder / f"overlay_{name}.png"),
            "mask": save(mask, folder / f"mask_{name}.png")})
        rows += [render.label(image[0], title), labelled, render.label(over, f"{concept}: overlay"),
                 render.label(mask[..., None].expand(-1, -1, 3), f"{concept}: mask")]
    about["contact_sheet"] = save(render.sheet(rows, columns=4), folder / "contact_sheet.png")
    recording.save(folder / RECORDING)
    return about | {"recording": RECORDING}


def files(about: dict) -> list[str]:
    """The names of the files that `write` wrote, in its order."""
    shown = [concept[kind] for concept in about["concepts"] for kind in ("heatmap", "overlay", "mask")]
    return [*([about["picture"]] if "picture" in about else []), *shown, about["contact_sheet"], about["recording"]]


def print_files(folder: Path, about: dict) -> None:
    for name in files(about):
        click.echo((folder / name).resolve())


def save(picture: Tensor, path: Path) -> str:
    render.to_pil(picture).save(path)
    return path.name
