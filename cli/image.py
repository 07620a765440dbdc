"""concept-saliency image: where a model sees concepts in pictures that already exist."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Callable

import click
import torch
from torch import Tensor
from tqdm import tqdm

from ..core.saliency import saliency
from . import models, options, pictures, results

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
    look: results.Look

    def check(self, model: models.Model) -> None:
        """Put it to a small grey picture. Raises ValueError for what is wrong with it before anything is written."""
        grey = torch.full((1, 3, 64, 64), 0.5)
        recordings = model.record(grey, self.concepts, self.contrast, [self.caption], self.noise_level)
        saliency(recordings["output"], self.look.layers)

    def answer(self, model: models.Model, picture: Tensor, folder: Path, title: str) -> dict:
        """Write the results for one picture, 1 x 3 x H x W in 0..1, into `folder`; returns what JSON says of them."""
        recording = model.record(picture, self.concepts, self.contrast, [self.caption], self.noise_level,
                                 range(self.seed, self.seed + self.samples))["output"]
        return results.write(folder, picture, recording, title, self.look)


def asking(command: Callable) -> Callable:
    """The options that make up a Question, collected into one argument `question`, beside `model` and its name."""
    @wraps(command)
    def collected(*args, model_name, concepts, contrast, caption, noise_level, samples, seed, look, **others):
        model = models.load(model_name)
        question = Question(concepts, model.contrast if contrast is None else contrast, caption, noise_level, samples, seed, look)
        return command(*args, model=model, model_name=model_name, question=question, **others)

    return options.stack(options.model, options.concepts, options.contrast, options.existing_pictures, options.seed,
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
    question.check(model)
    for file in files:
        pictures.read(file)  # one that cannot be read stops everything before the work begins
    for file in tqdm(files, desc="looking", unit="picture", file=sys.stderr, disable=len(files) == 1):
        about = question.answer(model, pictures.read(file), out / file.name, file.name)
        if as_json:
            click.echo(json.dumps({"picture": str(file), "folder": str((out / file.name).resolve())} | about))
        else:
            results.print_files(out / file.name, about)
