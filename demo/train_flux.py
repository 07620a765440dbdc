"""Train the tiny Flux with rectified flow: python -m concept_saliency.demo.train_flux --out FOLDER

FOLDER must hold codec.safetensors (see train_codec). A killed run goes on from its last checkpoint
when called again with the same FOLDER: weights, optimisers, running average, step and time are in it.
--init FOLDER begins from exported weights instead of from nothing, with new optimisers. Scenes are
drawn as they are needed, no scene twice; the masks are never looked at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pixel_unshuffle
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .codec import as_matrix, load_codec
from .flux import Flux, pack
from .muon import Muon, has_bfloat16
from .text import TextEncoder, Tokenizer, pad
from .world import make_scene

BATCHES = {128: 64, 192: 30, 256: 16}  # side in pixels -> pictures a step; small pictures are cheap and teach the words first
EMPTY_CAPTIONS, EMA = 0.1, 0.99
SEEDS = (2**40, 2**62)  # of training scenes: so many that none comes twice, and none that evaluation uses
POSED = 0.5  # share of posed scenes; the others, of every kind, are seen at lower noise alone, where the layout is plain to see
COUNTS = (0.3, 0.4, 0.3)  # odds of one, two and three things: several are harder to draw
NAMELESS = 0.5  # share of sentences whose ground is just "background", as the paper's contrast words call it
# Logits of the noise levels of posed scenes at 256 pixels, median 0.92: a thing covers many tokens, so that where it stands can be
# told, and is decided, long before any one token shows it. The highest level of the other scenes.
SHIFT, SPREAD, LOW = 2.5, 1.2, 0.8


class Scenes(IterableDataset):
    """Batches of fresh scenes without end: latents B x 16 x h x w in half precision, caption tokens B x T, noise levels B."""

    def __init__(self, codec, seed: list[int], progress: torch.Tensor):
        self.matrix, self.offset = as_matrix(codec)
        self.seed, self.progress = seed, progress

    def __iter__(self):
        rng, tokenizer = np.random.default_rng([*self.seed, get_worker_info().id]), Tokenizer()
        while True:
            side = int(rng.choice(list(BATCHES), p=size_odds(float(self.progress))))
            posed = rng.uniform(size=BATCHES[side]) < POSED
            scenes = [make_scene(int(rng.integers(*SEEDS)), (side, side), bool(p), COUNTS, NAMELESS) for p in posed]
            images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255
            latents = torch.einsum("bchw,ck->bkhw", pixel_unshuffle(images, 8), self.matrix) + self.offset[:, None, None]
            tokens = pad([[] if rng.uniform() < EMPTY_CAPTIONS else tokenizer(scene.caption) for scene in scenes])
            yield latents.half(), tokens, noise_levels(rng, posed, side)


def size_odds(progress: float) -> list[float]:
    """How often each size is drawn: small pictures first, the full size at the end."""
    if progress < 0.35:
        return [0.9, 0.1, 0.0]
    if progress < 0.65:
        return [0.35, 0.5, 0.15]
    return [0.0, 0.0, 1.0]


def noise_levels(rng, posed: np.ndarray, side: int) -> torch.Tensor:
    """Of posed scenes: logit-normal, the more tokens a picture has the higher (Esser et al. 2024); of the others: uniform up to LOW."""
    high = 1 / (1 + np.exp(-(rng.normal(size=len(posed)) * SPREAD + SHIFT + np.log(side / 256))))
    return torch.from_numpy(np.where(posed, high, rng.uniform(0, LOW, len(posed)))).float()


def scale(progress: float, step: int) -> float:
    """Share of the learning rate: warm-up, then a linear descent to nothing."""
    return min(1.0, (step + 1) / 50) * (1 - progress)


class Training:
    """Model, optimisers and running average; everything that a checkpoint holds."""

    def __init__(self, device: torch.device):
        self.device = device
        self.half = has_bfloat16(device)
        self.flux, self.text = Flux().to(device), TextEncoder(len(Tokenizer())).to(device)
        matrices, others = [], []
        for name, p in [*self.flux.named_parameters(), *self.text.named_parameters()]:
            inner = p.ndim == 2 and ("_blocks." in name or name.startswith("layer.")) and "mod" not in name
            (matrices if inner else others).append(p)
        self.optimisers = [Muon(matrices, lr=0.0, weight_decay=0.01, dtype=torch.bfloat16 if self.half else torch.float32),
                           torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=0.01)]
        self.step, self.seconds, self.log = 0, 0.0, []
        self.average = {}
        self.begin(self.weights())

    def weights(self):
        return {f"{part}.{k}": v for part, m in (("flux", self.flux), ("text", self.text)) for k, v in m.state_dict().items()}

    def begin(self, weights) -> None:
        """Take these weights, and begin their running average anew."""
        for part, module in (("flux", self.flux), ("text", self.text)):
            module.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith(part)})
        self.average = {k: v.detach().clone() for k, v in self.weights().items()}

    def begin_from(self, folder: Path) -> None:
        """Take the weights that `export` wrote."""
        self.begin({f"{part}.{k}": v for part in ("flux", "text") for k, v in load_file(folder / f"{part}.safetensors").items()})

    def save(self, path: Path) -> None:
        state = {"weights": self.weights(), "average": self.average, "step": self.step, "seconds": self.seconds,
                 "log": self.log, "optimisers": [o.state_dict() for o in self.optimisers]}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.begin(state["weights"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.average, self.step = state["average"], state["step"]
        self.seconds, self.log = state["seconds"], state["log"]

    def update(self, latents, tokens, levels, rate, forward) -> float:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
        latents, tokens, t = latents.to(self.device).float(), tokens.to(self.device), levels.to(self.device)[:, None, None, None]
        noise = torch.randn_like(latents)
        img, grid = pack((1 - t) * latents + t * noise)
        target, _ = pack(noise - latents)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
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
            weights = {k[5:]: v.to("cpu", torch.bfloat16) for k, v in self.average.items() if k.startswith(part)}
            save_file(weights, folder / f"{part}.safetensors", metadata=about)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="folder of exported weights to begin from; large pictures from the first step")
    parser.add_argument("--minutes", type=float, default=100, help="training time in all, over every resumption")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate at its highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    args = parser.parse_args()
    needed = [args.out / "codec.safetensors", *(args.init / f"{part}.safetensors" for part in ("flux", "text") if args.init)]
    if missing := [str(path) for path in needed if not path.exists()]:
        parser.error(f"there is no {' and no '.join(missing)}; a codec is made by train_codec, or copied from demo/weights, and --init "
                     "is a folder that this command has written, or demo/weights")
    torch.manual_seed(args.seed)
    training, checkpoint = Training(args.device), args.out / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
        torch.manual_seed(args.seed + training.step)
    elif args.init:
        training.begin_from(args.init)
    print(f"{sum(v.numel() for v in training.average.values()) / 1e6:.1f} M weights, step {training.step}", flush=True)
    stage = torch.tensor(1.0 if args.init else 0.0).share_memory_()  # the workers see how far training has come
    scenes = Scenes(load_codec(args.out / "codec.safetensors"), [args.seed, training.step], stage)
    forward = torch.compile(training.flux, dynamic=False)
    last, losses = time.time(), []
    for latents, tokens, levels in DataLoader(scenes, batch_size=None, num_workers=args.workers):
        progress = training.seconds / 60 / args.minutes
        if progress >= 1:
            break
        if not args.init:
            stage.fill_(progress)
        losses.append(training.update(latents, tokens, levels, args.rate * scale(progress, training.step), forward))
        now = time.time()
        training.seconds, last = training.seconds + now - last, now
        if training.step % 50 == 0:
            training.log.append([training.step, round(training.seconds), round(float(np.mean(losses)), 4)])
            print(json.dumps(training.log[-1]), flush=True)
            losses.clear()
        if training.step % 200 == 0:
            training.save(checkpoint)
            training.export(args.out)
    training.save(checkpoint)
    training.export(args.out)
    (args.out / "training_log.json").write_text(json.dumps({"columns": ["step", "seconds", "loss"], "rows": training.log}))


if __name__ == "__main__":
    main()
