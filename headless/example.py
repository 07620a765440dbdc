"""Where does Flux see each concept? In a picture as it is drawn, and in one that exists. Copy and change.

    python -m concept_saliency.headless.example black-forest-labs/FLUX.1-schnell out
    python -m concept_saliency.headless.example black-forest-labs/FLUX.1-dev out photo.jpg
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from concept_saliency import capture, saliency_of_image
from concept_saliency.core import masks, render

PROMPT, CONCEPTS = "a cat and a dog", "cat, dog"


def main(model: str, out: Path, photo: str | None = None) -> None:
    on_gpu = torch.cuda.is_available()
    pipe = FluxPipeline.from_pretrained(model, dtype=torch.bfloat16 if on_gpu else torch.float32)  # torch_dtype before diffusers 0.40
    if on_gpu:
        pipe.enable_model_cpu_offload()
    out.mkdir(parents=True, exist_ok=True)

    # 1. While a picture is drawn. Everything is recorded once; what is made of it can be chosen afterwards.
    with capture(pipe, CONCEPTS, cross_attention=True) as recordings:
        picture = pipe(PROMPT, generator=torch.Generator().manual_seed(0)).images[0]
    recording = recordings.latest  # scores: steps x layers x pictures x concepts x rows x columns
    recording.save(out / "recording.safetensors")
    choices = {
        "the paper's layers": recording.saliency(),
        "the last layer": recording.saliency(layers="-1"),
        "the first half of the steps": recording.saliency(end=0.5),
        "cross-attention": recordings.in_space("cross-attention").latest.saliency(),
    }
    pixels = torch.from_numpy(np.array(picture))[None].float() / 255
    tiles = [render.label(tile, f"{tile_of}: {name}") for name, maps in choices.items()
             for tile_of, tile in zip(maps.concepts, render.overlay(pixels, masks.soft_masks(maps)[0]))]
    render.to_pil(render.sheet(tiles, columns=len(recording.concepts))).save(out / "choices.png")

    # 2. In a picture that exists: one partial forward pass a sample.
    maps = saliency_of_image(pipe, Image.open(photo) if photo else picture, CONCEPTS, samples=3)
    for concept, presence in zip(maps.concepts, maps.presence[0]):
        render.to_pil(masks.mask(maps, concept)[0]).save(out / f"mask_{concept}.png")
        print(f"{concept}: presence {presence:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
