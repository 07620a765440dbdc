"""concept-saliency generate: draw a picture, and show where the model saw each concept while it drew."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
from tqdm import tqdm

from . import models, options, place, results

EXAMPLES = options.examples(
    'concept-saliency generate --prompt "a cat on snow" --concepts "cat, snow"',
    'concept-saliency generate --prompt "a boat on water" --concepts boat --size 320x192 --mask otsu --json')


class Size(click.ParamType):
    """WIDTHxHEIGHT, as (height, width)."""

    name = "WIDTHxHEIGHT"

    def convert(self, value, parameter, context) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        if not (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)):
            self.fail(f"'{value}' is no size. Write width x height in pixels, for example: 1024x768", parameter, context)
        return int(found[2]), int(found[1])


@click.command(epilog=EXAMPLES)
@options.model
@click.option("--prompt", required=True, help="What to draw.")
@options.concepts
@options.contrast
@options.blocks
@options.seed
@click.option("--size", type=Size(), help="Pixels, for example 1024x768.  [default: the model's own]")
@click.option("--steps", type=click.IntRange(1, 1000), help="Sampling steps.  [default: the model's own]")
@options.look
@options.out("generate-output")
@options.as_json
def command(model_name: str, prompt: str, concepts: str, contrast: str | None, blocks: str, seed: int,
            size: tuple[int, int] | None, steps: int | None, look: results.MapOptions, out: Path, as_json: bool) -> None:
    """Draw a picture and write it with a heatmap, overlay and mask of every concept, and the raw recording."""
    model = models.load(model_name)
    look.check(model.layers(blocks))
    told = {"prompt": prompt, "seed": seed}
    with place.claimed(out, "generate"):
        picture, recording = model.generate(prompt, concepts, model.contrast if contrast is None else contrast, seed,
                                            size or model.size, steps,
                                            lambda steps: tqdm(steps, desc="sampling", unit="step", file=sys.stderr), blocks)
        place.write_json(out / place.SETTINGS, {"command": "generate", "model": model_name} | told)
        try:
            about = results.write(out, picture, recording, prompt, told, look, keep_picture=True)
        except BaseException:
            if (out / results.RECORDING).exists():
                click.echo(f"What was recorded is kept: {(out / results.RECORDING).resolve()}", err=True)
            raise
    if as_json:
        click.echo(json.dumps({"folder": str(out.resolve())} | about))
    else:
        results.print_files(out, [about["picture"], *results.files(about)])
