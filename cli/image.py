"""concept-saliency image: where a model sees concepts in pictures that already exist."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path

import click
import torch
from PIL import Image
from tqdm import tqdm

from ..core import pictures
from . import models, options, place, results

EXAMPLES = options.examples(
    'concept-saliency image photo.png --concepts "cat, sand"',
    'concept-saliency image a.png b.jpg --concepts "robot|person, house" --samples 5 --mask otsu --json')


@dataclass(frozen=True)
class Question:
    """What is asked about every picture."""

    concepts: str
    contrast: str
    caption: str
    noise_level: float | None
    samples: int
    seed: int
    look: results.MapOptions
    megapixels: float
    blocks: str = "auto"

    def check(self, model: models.Model) -> None:
        """Put it to a small grey picture. Raises ValueError for what is wrong with it before anything is written."""
        self.look.check(model.layers(self.blocks))
        model.record(torch.full((1, 3, 64, 64), 0.5), self.concepts, self.contrast, [self.caption], self.noise_level, blocks=self.blocks)

    def answer(self, model: models.Model, picture: Image.Image, folder: Path, name: str, progress: models.Progress = iter) -> dict:
        """Write the results for one picture into `folder`; returns what JSON says of them. `progress` wraps the model's work."""
        image = pictures.as_tensor(picture)
        height, width = image.shape[-2:]
        shown = pictures.resized(image, pictures.model_size(height, width, self.megapixels))
        recording = model.record(shown, self.concepts, self.contrast, [self.caption], self.noise_level,
                                 range(self.seed, self.seed + self.samples), progress=progress, blocks=self.blocks)["output"]
        return results.write(folder, image, recording.at_size((height, width)), Path(name).name, {"picture": name}, self.look)


def asking(command: Callable) -> Callable:
    """The options that make up a Question, collected into one argument `question`, beside `model` and its name."""
    @wraps(command)
    def collected(*args, model_name, concepts, contrast, caption, noise_level, samples, megapixels, seed, look, blocks,
                  **others):
        model = models.load(model_name)
        question = Question(concepts, model.contrast if contrast is None else contrast, caption, noise_level, samples, seed, look,
                            megapixels, blocks)
        return command(*args, model=model, model_name=model_name, question=question, **others)

    return options.stack(options.model, options.concepts, options.contrast, options.blocks, options.existing_pictures, options.seed,
                         options.look)(collected)


@click.command(epilog=EXAMPLES)
@click.argument("files", metavar="PICTURE...", nargs=-1, required=True, type=options.EXISTING_FILE)
@asking
@options.out("image-output")
@options.as_json
def command(files: tuple[Path, ...], model: models.Model, model_name: str, question: Question, out: Path, as_json: bool) -> None:
    """Look for concepts in PICTUREs of any size.

    For each, a folder of its name in --out: a heatmap, overlay and mask of every concept, a contact sheet, the raw recording.
    """
    if len({file.name for file in files}) < len(files):
        raise ValueError("Two of the pictures have the same name, and their results would overwrite each other. Rename one.")
    for file in files:
        pictures.read(file)  # one that cannot be read stops everything before the work begins
    question.check(model)
    with place.claimed(out, "image"):
        place.write_json(out / place.SETTINGS, {"command": "image", "model": model_name} | asdict(question))
        for file in files:
            about = question.answer(model, pictures.read(file), out / file.name, str(file),
                                    partial(tqdm, desc=file.name, unit="step", file=sys.stderr))
            if as_json:
                click.echo(json.dumps({"folder": str((out / file.name).resolve())} | about))
            else:
                results.print_files(out / file.name, results.files(about))
