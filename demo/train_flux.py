"""Train the tiny Flux with rectified flow: python -m concept_saliency.demo.train_flux --out FOLDER

FOLDER must hold codec.safetensors (see train_codec). A killed run goes on from its last checkpoint
when called again with the same FOLDER.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import pixel_unshuffle

from .codec import as_matrix, load_codec
from .flux import Flux, pack
from .text import TextEncoder, Tokenizer, pad
from .world import make_scene

# picture size -> (scenes in the pool, batch size); small pictures are cheap and teach the words first
POOLS = {(128, 128): (8000, 64), (192, 192): (6000, 30), (256, 256): (7000, 18)}
RATE, EMPTY_CAPTIONS, EMA = 1.5e-3, 0.1, 0.998


def draw_pool(size: tuple[int, int], count: int, first_seed: int, codec) -> tuple[torch.Tensor, list[list[int]]]:
    """`count` scenes as half-precision latents and caption tokens."""
    matrix, offset = as_matrix(codec)
    tokenizer, latents, captions = Tokenizer(), [], []
    for seed in range(first_seed, first_seed + count):
        scene = make_scene(seed, size)
        image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1).float() / 255
        latents.append((torch.einsum("chw,ck->khw", pixel_unshuffle(image, 8), matrix) + offset[:, None, None]).half())
        captions.append(tokenizer(scene.caption))
    return torch.stack(latents), captions


def size_odds(progress: float) -> list[float]:
    """How often each size is drawn: small pictures first, the full size at the end."""
    if progress < 0.35:
        return [0.9, 0.1, 0.0]
    if progress < 0.65:
        return [0.35, 0.5, 0.15]
    return [0.1, 0.2, 0.7]


def rate(progress: float, step: int) -> float:
    """Warm-up, a flat stretch, then a linear descent."""
    return min(1.0, (step + 1) / 200) * min(1.0, (1 - progress) / 0.4 + 0.01)


class Training:
    """Model, optimisers and running average; everything that a checkpoint holds."""

    def __init__(self):
        self.flux, self.text = Flux(), TextEncoder(len(Tokenizer()))
        self.average = {k: v.detach().clone() for k, v in self.weights().items()}
        matrices, others = [], []
        for name, p in [*self.flux.named_parameters(), *self.text.named_parameters()]:
            inner = p.ndim == 2 and ("_blocks." in name or name.startswith("layer.")) and "mod" not in name
            (matrices if inner else others).append(p)
        self.optimisers = [torch.optim.Muon(matrices, lr=RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
                           torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)]
        self.step, self.seconds, self.log = 0, 0.0, []

    def weights(self):
        return {f"{part}.{k}": v for part, m in (("flux", self.flux), ("text", self.text)) for k, v in m.state_dict().items()}

    def save(self, path: Path) -> None:
        state = {"weights": self.weights(), "average": self.average, "step": self.step, "seconds": self.seconds,
                 "log": self.log, "optimisers": [o.state_dict() for o in self.optimisers]}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for part, module in (("flux", self.flux), ("text", self.text)):
            module.load_state_dict({k[5:]: v for k, v in state["weights"].items() if k.startswith(part)})
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.average, self.step = state["average"], state["step"]
        self.seconds, self.log = state["seconds"], state["log"]

    def update(self, latents, tokens, progress, forward) -> float:
        scale = rate(progress, self.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = RATE * scale
            optimiser.zero_grad(set_to_none=True)
        t = torch.sigmoid(torch.randn(len(latents)) * 1.2 + 0.2)[:, None, None, None]
        noise = torch.randn_like(latents)
        img, grid = pack((1 - t) * latents + t * noise)
        target, _ = pack(noise - latents)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = forward(img, self.text(tokens), t.flatten(), grid)
        loss = (predicted.float() - target).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*self.flux.parameters(), *self.text.parameters()], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.weights()
            torch._foreach_lerp_(list(self.average.values()), [current[k] for k in self.average], 1 - decay)
        return loss.item()

    def export(self, folder: Path) -> None:
        """The running average as bfloat16 safetensors: flux.safetensors and text.safetensors."""
        about = {"licence": "Apache-2.0", "steps": str(self.step), "training_seconds": f"{self.seconds:.0f}"}
        for part in ("flux", "text"):
            weights = {k[5:]: v.to(torch.bfloat16) for k, v in self.average.items() if k.startswith(part)}
            save_file(weights, folder / f"{part}.safetensors", metadata=about)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100, help="training time in all, over every resumption")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    training, checkpoint = Training(), args.out / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
        torch.manual_seed(args.seed + training.step)
    rng = np.random.default_rng([args.seed, training.step])
    codec, pools, first = load_codec(args.out / "codec.safetensors"), {}, 0
    for size, (count, _) in POOLS.items():
        pools[size] = draw_pool(size, count, first, codec)
        first += count
    print(f"{first} scenes drawn, {sum(v.numel() for v in training.average.values()) / 1e6:.1f} M weights", flush=True)
    forward = torch.compile(training.flux, dynamic=False)
    last, losses = time.time(), []
    while (progress := training.seconds / 60 / args.minutes) < 1:
        size = list(POOLS)[rng.choice(len(POOLS), p=size_odds(progress))]
        latents, captions = pools[size]
        picks = rng.integers(0, len(latents), POOLS[size][1])
        tokens = pad([[] if rng.uniform() < EMPTY_CAPTIONS else captions[i] for i in picks])
        losses.append(training.update(latents[picks].float(), tokens, progress, forward))
        now = time.time()
        training.seconds, last = training.seconds + now - last, now
        if training.step % 100 == 0:
            training.log.append([training.step, round(training.seconds), round(float(np.mean(losses)), 4)])
            print(json.dumps(training.log[-1]), flush=True)
            losses.clear()
        if training.step % 500 == 0:
            training.save(checkpoint)
            training.export(args.out)
    training.save(checkpoint)
    training.export(args.out)
    (args.out / "training_log.json").write_text(json.dumps({"columns": ["step", "seconds", "loss"], "rows": training.log}))


if __name__ == "__main__":
    main()
