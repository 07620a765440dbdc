"""What every Flux.1 that is measured has in common: its width, what is looked for in it, its random weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parent.parent
if "concept_saliency" not in sys.modules:  # whatever the folder's name is
    spec = importlib.util.spec_from_file_location("concept_saliency", REPOSITORY / "__init__.py",
                                                  submodule_search_locations=[str(REPOSITORY)])
    sys.modules["concept_saliency"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["concept_saliency"])

WIDTH, HEADS, TEXT, AXES = 3072, 24, 256, (16, 56, 56)
CONTRAST = ("background", "floor", "tree", "person", "grass", "face")
# what Flux is run in, but on CPUs that only pretend to compute in it, fifty times slower than in float32
DTYPE = torch.bfloat16 if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def names(count: int) -> tuple[str, ...]:
    return tuple(f"concept {i}" for i in range(count))


def vectors(count: int) -> torch.Tensor:
    """Text vectors of so many concepts, 1 x C x 4096."""
    return torch.randn(1, count, 4096, generator=torch.Generator().manual_seed(1))


def fill(transformer: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The transformer with random weights that are made where they stay."""
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in transformer.named_parameters():
        weight.data = torch.randn(weight.shape, generator=generator, device=device, dtype=DTYPE) / (weight.shape[-1] ** 0.5)
        if name.endswith("scale") or (weight.ndim == 1 and "norm" in name):
            weight.data.fill_(1)
    return transformer.eval().requires_grad_(False)


class Bare:
    """A Flux.1 called as a sampler calls it, without ComfyUI: Euler steps from noise to nothing.

    transformer, naming: see core/families. A subclass says how the transformer is built, called and looked into.
    """

    def __init__(self, depth: int, batch: int):
        self.device, self.batch = torch.device("cuda" if torch.cuda.is_available() else "cpu"), batch
        self.concepts, self.window, self.blocks = 0, (0.0, 1.0), "auto"
        with torch.device("meta"):
            transformer = self.built(depth)
        self.transformer = fill(transformer.to(DTYPE).to_empty(device=self.device), self.device)

    def captured(self, concepts: int, window: tuple[float, float] = (0.0, 1.0), blocks: str = "auto"):
        """The same Flux, looked into whenever it is sampled."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), concepts=concepts, window=window, blocks=blocks)
        return other

    def inputs(self, tokens: int) -> dict[str, torch.Tensor]:
        """img B x N x 64, txt B x T x 4096, y B x 768, guidance B: what a call is given besides the time."""
        generator, kind = torch.Generator().manual_seed(2), dict(device=self.device, dtype=DTYPE)
        shapes = {"img": (tokens, 64), "txt": (TEXT, 4096), "y": (768,)}
        given = {name: torch.randn(self.batch, *shape, generator=generator).to(**kind) for name, shape in shapes.items()}
        return {**given, "guidance": self.each(3.5)}

    def each(self, value: float) -> torch.Tensor:
        """One number for every picture."""
        return torch.full((self.batch,), value, device=self.device, dtype=DTYPE)

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def side(self, tokens: int) -> int:
        """Of the picture, in tokens."""
        return round(tokens**0.5)
