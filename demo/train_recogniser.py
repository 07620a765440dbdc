"""Train the recogniser on scenes and their masks: python -m concept_saliency.demo.train_recogniser

Writes recogniser.safetensors beside this file and prints how it does on held-out scenes, as they are and
after the codec, which is all that a drawing can be. It never sees what the tiny Flux draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.utils.data import DataLoader, IterableDataset

from .codec import decode, encode, load_codec
from .pipeline import WEIGHTS
from .recogniser import CLASSES, FILE, Recogniser, is_whole, load_recogniser, read, things_in
from .world import Scene, make_scene

BATCH, RATE = 32, 6e-3
SEEDS = (2**40, 2**62)  # as train_flux draws them: none that evaluation uses
HELD_OUT = range(1_900_000, 1_900_200)


def as_tensors(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Pictures B x 3 x H x W in 0..1, and classes B x H x W."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    labels = np.stack([sum(CLASSES.index(thing) * scene.masks[thing] for thing in scene.things) for scene in scenes])
    return images, torch.from_numpy(labels.astype(np.int64))


class Batches(IterableDataset):
    """Fresh scenes without end, posed and not, with the noise and blur that a codec leaves; classes at a quarter of the size."""

    def __init__(self, seed: int):
        self.seed = seed

    def __iter__(self):
        rng = np.random.default_rng(self.seed)
        noise = torch.Generator().manual_seed(self.seed)
        while True:
            images, labels = as_tensors([make_scene(int(s), posed=bool(s % 2)) for s in rng.integers(*SEEDS, BATCH)])
            blurred = avg_pool2d(images, 5, 1, 2, count_include_pad=False)
            images = images.lerp(blurred, torch.rand(BATCH, 1, 1, 1, generator=noise))
            strength = 0.06 * torch.rand(BATCH, 1, 1, 1, generator=noise)
            yield images + strength * torch.randn(images.shape, generator=noise), labels[:, 2::4, 2::4]


def report(recogniser: Recogniser, scenes: list[Scene], images: Tensor, labels: Tensor) -> str:
    found = read(recogniser, images)
    shared = [((f == CLASSES.index(t)) & (m == CLASSES.index(t))).sum() / ((f == CLASSES.index(t)) | (m == CLASSES.index(t))).sum()
              for f, m, scene in zip(found, labels, scenes) for t in scene.things]
    exact = [things_in(f) == set(scene.things) for f, scene in zip(found, scenes)]
    whole = [is_whole(f, thing) for f, scene in zip(found, scenes) for thing in scene.things]
    return (f"pixels {(found == labels).float().mean():.4f}, IoU of a thing {np.mean(shared):.4f}, "
            f"pictures with exactly their things {np.mean(exact):.3f}, whole things {np.mean(whole):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    recogniser = Recogniser()
    optimiser = torch.optim.AdamW(recogniser.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=args.steps, pct_start=0.1)
    batches = iter(DataLoader(Batches(args.seed), batch_size=None, num_workers=1))
    for step in range(1, args.steps + 1):
        images, labels = next(batches)
        loss = cross_entropy(recogniser(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step}  loss {loss.item():.4f}", flush=True)
    weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in recogniser.state_dict().items()}
    save_file(weights, args.out, metadata={"licence": "Apache-2.0", "steps": str(args.steps), "seed": str(args.seed)})
    recogniser, codec = load_recogniser(args.out), load_codec(WEIGHTS / "codec.safetensors")
    scenes = [make_scene(seed) for seed in HELD_OUT]
    images, labels = as_tensors(scenes)
    print("held-out scenes:", report(recogniser, scenes, images, labels))
    images = torch.cat([decode(codec, encode(codec, batch)) for batch in images.split(20)])
    print("after the codec:", report(recogniser, scenes, images, labels))


if __name__ == "__main__":
    main()
