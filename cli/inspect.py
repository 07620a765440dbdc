"""concept-saliency inspect: what is in a recording or a saliency file."""

from __future__ import annotations

import json
from pathlib import Path

import click
from safetensors import SafetensorError, safe_open

from ..core.recording import Recording
from ..core.saliency import Saliency, saliency
from . import options

EXAMPLES = options.examples("concept-saliency inspect demo-output/recording.safetensors",
                            "concept-saliency inspect cat.saliency.safetensors --json")


@click.command(epilog=EXAMPLES)
@click.argument("file", type=options.EXISTING_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def command(file: Path, as_json: bool) -> None:
    """Say what is in FILE: a recording that these commands or a node saved, or a node's saliency."""
    about = described(file)
    if as_json:
        click.echo(json.dumps(about))
        return
    presence = about.pop("presence")
    for key, value in about.items():
        if isinstance(value, list):
            value = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        click.echo(f"{key.replace('_', ' ')}: {value}")
    for number, row in enumerate(presence, 1):
        click.echo(f"presence, picture {number}: " + ", ".join(f"{name} {p:.4f}" for name, p in row.items()))


def described(file: Path) -> dict:
    """What is in a file, as plain values. Raises ValueError for one that is neither kind."""
    try:
        with safe_open(file, framework="pt") as opened:
            kind = (opened.metadata() or {}).get("format", "")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{file}' cannot be read as safetensors: {error}") from error
    if kind.startswith("concept_saliency.saliency."):
        return {"kind": "saliency"} | of_saliency(Saliency.load(file))
    recording = Recording.load(file)  # refuses whatever else it is
    about = of_saliency(saliency(recording))
    return {"kind": "recording", "family": recording.family, "space": recording.space, "layers": list(recording.layers),
            "depth": recording.depth, "steps": len(recording.sigmas),
            "noise_levels": [round(sigma, 4) for sigma in recording.sigmas]} | about


def of_saliency(found: Saliency) -> dict:
    """The part that both kinds have; presence by the default layers, steps and temperature."""
    pictures, _, rows, columns = found.maps.shape
    return {"concepts": list(found.concepts), "contrast": list(found.contrast), "pictures": pictures,
            "image_size": "{1} x {0}".format(*found.image_size), "grid": f"{columns} x {rows}",
            "presence": [{name: round(p, 4) for name, p in zip(found.concepts, row)} for row in found.presence.tolist()]}
