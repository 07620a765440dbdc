"""Fit the image codec to the tiny world: python -m concept_saliency.demo.train_codec --out FOLDER

Writes codec.safetensors at once with the fitted encoder (enough to train the diffusion model),
then trains the decoder and writes it again. Called again, it goes on with the decoder found in FOLDER.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import l1_loss

from .codec import decode, encode, load_codec, make_codec, save_codec
from .muon import has_bfloat16
from .world import make_scene

CROP, BATCH, RATE = 64, 16, 1e-3


def pictures(seeds, size=(256, 256)):
    """Scenes as one B x 3 x H x W tensor in 0..1."""
    stack = np.stack([make_scene(seed, size).image for seed in seeds])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


def crops(rng):
    """Random crops of fresh scenes, drawn at the sizes that the diffusion model is trained on."""
    out = []
    for _ in range(BATCH // 2):
        side = int(rng.choice([128, 192, 256]))
        image = make_scene(int(rng.integers(0, 1_000_000)), (side, side)).image
        for y, x in rng.integers(0, (side - CROP) // 8 + 1, (2, 2)) * 8:
            out.append(image[y:y + CROP, x:x + CROP])
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 255


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    path = args.out / "codec.safetensors"
    args.out.mkdir(parents=True, exist_ok=True)
    codec = load_codec(path) if path.exists() else make_codec(pictures(range(200)))
    codec.decoder.requires_grad_(True)
    about = {"licence": "Apache-2.0", "seed": str(args.seed)}
    if not path.exists():
        save_codec(codec, path, about)
    optimiser = torch.optim.AdamW(codec.decoder.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    start, step = time.time(), 0
    while (progress := (time.time() - start) / 60 / args.minutes) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (0.02 + 0.98 * (1 - progress))
        x = crops(rng)
        z = encode(codec, x)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu"))):
            y = codec.decode(z + 0.05 * torch.randn_like(z)).sample / 2 + 0.5  # it must bear small errors
        y = y.float()
        error = (y - x).square().mean()
        loss = l1_loss(y, x) + 4 * error
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.decoder.parameters(), 1)
        optimiser.step()
        step += 1
        if step % 25 == 0:
            print(f"step {step}  loss {loss.item():.4f}  psnr {-10 * torch.log10(error).item():.1f}  "
                  f"{time.time() - start:.0f} s", flush=True)
    save_codec(codec, path, about | {"steps": str(step)})
    codec, held_out = load_codec(path), pictures(range(1_000_000, 1_000_032))
    z = encode(codec, held_out)
    error = (decode(codec, z) - held_out).square().mean()
    print(f"held-out psnr {-10 * torch.log10(error).item():.2f} dB, latents mean {z.mean():.3f} std {z.std():.3f}")


if __name__ == "__main__":
    main()
