"""Masks for training and other tools: what `batch --export` writes beside the results, each file whole or not at all.

Everything is made of a picture's own folder, so that it can be asked for afterwards, and comes out the same from one process or many.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.recording import Recording
from ..core.saliency import Saliency, saliency
from . import place, results

KINDS = ("stem", "soft", "npz", "coco")
FOLDER = "export"


class Exports:
    """What is exported of a batch: `kinds` of files, in the folder `export` of --out.

    names: all pictures', as paths within their folder. min_presence: a concept less present than that is not there. Raises
    ValueError where two pictures would have the same file, and where a package is missing.
    """

    def __init__(self, out: Path, kinds: tuple[str, ...], names: list[str], look: results.MapOptions, min_presence: float):
        self.out, self.kinds, self.names, self.look, self.min_presence = out, kinds, names, look, min_presence
        twice = [stem for stem, count in Counter(Path(name).with_suffix("") for name in names).items() if count > 1]
        if kinds and twice:
            raise ValueError(f"Several pictures are called '{twice[0]}' but for their ending, and would have the same mask. Rename one.")
        if "coco" in kinds:
            _pycocotools()

    def settle(self) -> None:
        """Remember what was asked. Raises ValueError where something else was exported before."""
        file, asked = self.out / FOLDER / place.SETTINGS, {"min_presence": self.min_presence}
        if self.kinds and file.exists() and (found := place.read_json(file)) != asked:
            raise ValueError(f"'{file.parent}' was exported with --min-presence {found.get('min_presence')}. "
                             "Give the same, or remove that folder; the results stay.")
        if self.kinds:
            place.write_json(file, asked)

    def write(self, line: dict) -> None:
        """Whatever is missing of one picture. line: what JSON says of it."""
        for file, content in self.parts(line):
            if not (self.out / file).exists():
                place.write_whole(self.out / file, content())

    def parts(self, line: dict) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Every file of one picture, as a path within --out, and what makes its content."""
        picture, stem = _Picture(self.out / line["picture"], self.look), Path(line["picture"]).with_suffix("").as_posix()
        for concept, folder in zip(line["concepts"], folders(line)):
            if "stem" in self.kinds:
                yield f"{FOLDER}/stem/{folder}/{stem}.png", partial(picture.mask, concept, self.there(concept))
            if "soft" in self.kinds:
                yield f"{FOLDER}/soft/{folder}/{stem}.png", partial(picture.soft, concept, self.there(concept))
        if "npz" in self.kinds:
            yield f"{FOLDER}/npz/{stem}.npz", picture.maps
        if "coco" in self.kinds:
            yield f"{FOLDER}/coco/{stem}.json", partial(picture.annotations, [c for c in line["concepts"] if self.there(c)])

    def there(self, concept: dict) -> bool:
        return concept["presence"] >= self.min_presence

    def gather(self, lines: list[dict]) -> None:
        """The files about all pictures, whose lines are in the order of their names: the manifest, and COCO's."""
        manifest = [line if "error" in line else line | {"exported": [file for file, _ in self.parts(line)], "concepts": [
            concept | {"there": self.there(concept)} for concept in line["concepts"]]} for line in lines]
        place.replace_text(self.out / FOLDER / "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in manifest))
        if "coco" not in self.kinds:
            return
        done = [line for line in lines if "error" not in line]
        concepts = [concept["concept"] for concept in done[0]["concepts"]] if done else []
        images: list[dict] = []
        annotations: list[dict] = []
        for number, line in enumerate(done, 1):
            images.append({"id": number, "file_name": line["picture"], "width": line["width"], "height": line["height"]})
            piece = self.out / FOLDER / "coco" / Path(line["picture"]).with_suffix(".json")
            for found in place.read_json(piece)["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number,
                                    "category_id": concepts.index(found.pop("concept")) + 1} | found)
        place.write_json(self.out / FOLDER / "coco.json", {
            "images": images, "annotations": annotations,
            "categories": [{"id": i, "name": concept} for i, concept in enumerate(concepts, 1)]})


class _Picture:
    """The results of one picture, read when they are needed."""

    def __init__(self, folder: Path, look: results.MapOptions):
        self.folder, self.look = folder, look

    @cached_property
    def saliency(self) -> Saliency:
        return saliency(Recording.load(self.folder / results.RECORDING), self.look.layers, temperature=self.look.temperature)

    def mask(self, concept: dict, there: bool) -> bytes:
        """White where the concept is; black all over where it is not there."""
        return (self.folder / concept["mask"]).read_bytes() if there else _png(np.zeros(self.saliency.image_size, dtype=np.uint8))

    def soft(self, concept: dict, there: bool) -> bytes:
        """The map itself in 16 bits, 65535 being 1."""
        row = self.saliency.index(concept["concept"])
        plane = self.saliency.pixels(self.saliency.maps[:, row:row + 1])[0, 0].numpy() * there
        return _png((plane * 65535).round().astype(np.uint16))

    def maps(self) -> bytes:
        """The maps on the token grid, as numpy reads them."""
        found, opened = self.saliency, io.BytesIO()
        np.savez(opened, maps=found.maps[0].numpy(), contrast_maps=found.contrast_maps[0].numpy(), presence=found.presence[0].numpy(),
                 concepts=np.array(found.concepts), contrast=np.array(found.contrast, dtype=str),
                 image_size=np.array(found.image_size), extent=np.array(found.extent))
        return opened.getvalue()

    def annotations(self, concepts: list[dict]) -> bytes:
        """COCO's annotations of the masks that are not empty, less their numbers; the score is the presence."""
        coco, found = _pycocotools(), []
        for concept in concepts:
            with Image.open(self.folder / concept["mask"]) as file:
                run_lengths = coco.encode(np.asfortranarray(np.asarray(file) >= 128, dtype=np.uint8))
            if area := int(coco.area(run_lengths)):
                found.append({"concept": concept["concept"], "area": area, "bbox": coco.toBbox(run_lengths).tolist(),
                              "segmentation": run_lengths | {"counts": run_lengths["counts"].decode("ascii")},
                              "score": concept["presence"], "iscrowd": 0})
        return json.dumps({"annotations": found}).encode("utf-8")


def folders(line: dict) -> list[str]:
    """A folder's name for each concept of a picture: its own where letters allow it, with its number where others have the same."""
    names = [results.slug(concept["concept"]) for concept in line["concepts"]]
    return [name if names.count(name) == 1 else f"{i}_{name}" for i, name in enumerate(names, 1)]


def _png(plane: np.ndarray) -> bytes:
    opened = io.BytesIO()
    Image.fromarray(plane).save(opened, "PNG")
    return opened.getvalue()


def _pycocotools():
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ValueError("--export coco needs pycocotools: pip install pycocotools") from error
    return mask
