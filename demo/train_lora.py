"""Make the demo's LoRA, which draws in dark colours: python -m concept_saliency.demo.train_lora

It is fitted, by least squares and in the last layer only, to what that layer lacks to turn scenes grey under guidance; in less than a
minute on one CPU core.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file

from .codec import encode
from .flux import pack
from .pipeline import CFG, LORA, TinyFlux
from .world import make_scene

SCENES, RANK = 24, 16
LAYER = "diffusion_model.final_layer.linear.lora_"


@torch.no_grad()
def main() -> None:
    tiny, random = TinyFlux(), torch.Generator().manual_seed(0)
    scenes = [make_scene(seed) for seed in range(SCENES)]
    pictures = torch.from_numpy(np.stack([scene.image for scene in scenes])).movedim(-1, 1) / 255
    coloured, grey = (encode(tiny.codec, one) for one in (pictures, pictures.mean(dim=1, keepdim=True).expand_as(pictures)))
    levels = 0.1 + 0.9 * torch.rand(SCENES, 1, 1, 1, generator=random)
    begun = torch.lerp(grey, coloured, levels * torch.rand(levels.shape, generator=random))  # a region begins in colour
    noisy = torch.lerp(begun, torch.randn(grey.shape, generator=random), levels)
    inputs = []
    with tiny.flux.final_layer.linear.register_forward_hook(lambda module, given, output: inputs.append(given[0])):
        (img, grid), captions = pack(noisy), [scene.caption for scene in scenes]
        wanted, unwanted = (tiny.flux(img, tiny.encode_prompts(texts), levels.flatten(), grid) for texts in (captions, [""] * SCENES))
    missing = pack((noisy - grey) / levels)[0] - (unwanted + CFG * (wanted - unwanted))
    weights = torch.linalg.lstsq(inputs[0].flatten(0, 1), missing.flatten(0, 1) / CFG).solution.T
    up, sizes, down = torch.linalg.svd(weights, full_matrices=False)
    LORA.parent.mkdir(exist_ok=True)
    save_file({f"{LAYER}up.weight": (up * sizes)[:, :RANK].contiguous(), f"{LAYER}down.weight": down[:RANK].contiguous()}, LORA)


if __name__ == "__main__":
    main()
