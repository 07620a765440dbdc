"""concept-saliency demo: the bundled tiny Flux draws a scene and shows where it sees each concept."""

from __future__ import annotations

import click

from . import generate, options

EXAMPLES = options.examples(
    "concept-saliency demo",
    'concept-saliency demo --prompt "a robot and a cat on sand" --concepts "robot, cat, sand" --seed 3 --out robots')


@click.command(epilog=EXAMPLES)
@click.option("--prompt", default="a balloon and a tree on sand", show_default=True,
              help="What to draw, in the tiny world's words.")
@click.option("--concepts", default="balloon, tree, sand", show_default=True, help="What to look for.")
@options.contrast
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=8, show_default=True, help="Another seed, another picture.")
@options.out("demo-output")
@options.as_json
@click.pass_context
def command(context: click.Context, **asked) -> None:
    """From words to a picture, heatmaps, overlays and masks, with the bundled tiny Flux, on any CPU."""
    context.invoke(generate.command, model_name="tiny", **asked)
