"""concept-saliency demo: from a prompt and concepts to a picture, heatmaps, overlays and masks, with the bundled tiny Flux."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tqdm import tqdm

from ..core import masks, render
from ..core.saliency import saliency
from ..demo.world import CONTRAST

EXAMPLES = """examples:
  concept-saliency demo
  concept-saliency demo --prompt "a robot and a cat on sand" --concepts "robot, cat, sand" --seed 3 --out robots
"""


def add_arguments(parser) -> None:
    parser.add_argument("--prompt", default="a dragon and a house on grass", help="what to draw, in the tiny world's words (%(default)s)")
    parser.add_argument("--concepts", default="dragon, house, grass", help="what to look for (%(default)s)")
    parser.add_argument("--contrast", default=CONTRAST, help="rivals that are not shown (%(default)s)")
    parser.add_argument("--seed", type=int, default=4, help="another seed, another picture (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the results (%(default)s)")


def main(args) -> int:
    from ..demo.pipeline import TinyFlux

    model = TinyFlux()
    if unknown := model.tokenizer.unknown(args.prompt):
        raise ValueError(f"The tiny model does not know '{' '.join(unknown)}'. It knows: {', '.join(sorted(model.tokenizer.numbers))}")
    picture, recording = model.generate(args.prompt, args.concepts, args.contrast, args.seed,
                                        progress=lambda steps: tqdm(steps, desc="sampling", unit="step", file=sys.stderr))
    image = picture.permute(0, 2, 3, 1)
    result = saliency(recording)
    soft = masks.soft_masks(result)
    args.out.mkdir(parents=True, exist_ok=True)
    written = [save(image[0], args.out / "picture.png")]
    rows = []
    for i, (concept, labelled, heat) in enumerate(zip(result.concepts, render.tiles(result, soft), soft[0])):
        name = f"{i + 1}_{re.sub(r'[^0-9a-z]+', '_', concept.lower()).strip('_') or 'concept'}"
        over = render.overlay(image, heat[None])[0]
        mask = masks.mask(result, concept, "argmax", image=image)[0]
        written += [save(labelled, args.out / f"heatmap_{name}.png"), save(over, args.out / f"overlay_{name}.png"),
                    save(mask, args.out / f"mask_{name}.png")]
        rows += [render.label(image[0], args.prompt), labelled, render.label(over, f"{concept}: overlay"),
                 render.label(mask[..., None].expand(-1, -1, 3), f"{concept}: mask")]
    written.append(save(render.sheet(rows, columns=4), args.out / "contact_sheet.png"))
    recording.save(args.out / "recording.safetensors")
    written.append(args.out / "recording.safetensors")
    print("\n".join(str(path.resolve()) for path in written))
    return 0


def save(picture, path: Path) -> Path:
    render.to_pil(picture).save(path)
    return path
