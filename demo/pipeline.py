"""The tiny Flux without ComfyUI: from words to a picture, from pictures to recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..core.concepts import ConceptInputs
from ..core.erase import Hole
from ..core.families import Defaults
from ..core.families.flux1 import comfyui
from ..core.live_region import Region, RegionRule
from ..core.recording import Recorder, Recording
from ..core.stream import ConceptStream
from .codec import decode, encode, load_codec
from .flux import Flux, pack, unpack
from .text import TextEncoder, Tokenizer, pad
from .world import CONTRAST

WEIGHTS = Path(__file__).parent / "weights"
LORA = Path(__file__).parent / "loras" / "concept_saliency_demo_dark.safetensors"  # ComfyUI lists it among its own
Progress = Callable[[Iterable], Iterable]
STEPS, CFG = 24, 3.0
REGION = RegionRule()


class TinyFlux:
    """Model, text encoder and codec of the tiny world, in float32 on the CPU."""

    def __init__(self, folder: Path = WEIGHTS):
        self.flux, self.tokenizer = Flux(), Tokenizer()
        self.text = TextEncoder(len(self.tokenizer))
        self.flux.load_state_dict({k: v.float() for k, v in load_file(folder / "flux.safetensors").items()})
        self.text.load_state_dict({k: v.float() for k, v in load_file(folder / "text.safetensors").items()})
        for module in (self.flux, self.text):
            module.eval().requires_grad_(False)
        self.codec = load_codec(folder / "codec.safetensors")
        self.defaults, self.noise_level = load_defaults(folder)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text vectors B x T x D, filled up to equal length."""
        return self.text(pad([self.tokenizer(prompt) for prompt in prompts]))

    def encode_phrase(self, phrase: str) -> Tensor:
        """Vectors of the phrase's own tokens, T x D. Raises ValueError for words the tiny world does not have."""
        self.tokenizer.check(phrase)
        tokens = self.tokenizer(phrase)
        return self.text(pad([tokens]))[0, :len(tokens)]

    def layers(self, blocks: str = "auto") -> int:
        """How many layers are recorded; blocks: see core.families.Defaults.singles_of."""
        return len(comfyui.blocks(self.flux, self.defaults.singles_of(blocks)))

    def _begin(self, concepts: str, contrast: str, schedule, image_size, token: str, blocks: str):
        inputs = ConceptInputs.encoded(concepts, contrast, self.encode_phrase, token)
        depth = self.layers(blocks)
        singles = depth - len(self.flux.double_blocks)
        recorder = Recorder(inputs.concepts, inputs.contrast, comfyui.NAME, self.defaults, schedule, depth, image_size, singles=singles)
        return inputs.vectors, recorder

    def _watched(self, img, grid, txt, t, vectors, recorder, cross_attention=False, self_attention=True, linear=False) -> Tensor:
        singles = recorder.about["singles"]
        stream = ConceptStream(comfyui, self.flux, vectors, t, None, cross_attention, self_attention, linear, singles)
        velocity = self.flux(img, txt, t, grid, watch=stream.watch, singles=singles)
        recorder.add(float(t[0]), {space: torch.stack(s) for space, s in stream.scores.items()})
        return velocity

    def _sample(self, velocity, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int], levels: Sequence[float], cfg: float,
                progress: Progress = iter) -> Tensor:
        """Pictures B x 3 x H x W: Euler steps with guidance from noise level to noise level. velocity(img, grid, text, t): the model with
        the prompt."""
        if any(side % 16 or side < 32 for side in size):
            raise ValueError(f"size is {size[0]} x {size[1]}, expected sides of at least 32 that are multiples of 16")
        img, grid = pack(torch.cat([torch.randn(1, 16, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(seed))
                                    for seed in seeds]))
        positive, negative = self.encode_prompts([*prompts, *[""] * len(prompts)]).chunk(2)
        for now, then in progress(list(pairwise(levels))):
            t = torch.full((len(img),), now)
            wanted = velocity(img, grid, positive, t)
            unwanted = self.flux(img, negative, t, grid)
            img = img + (then - now) * (unwanted + cfg * (wanted - unwanted))
        return decode(self.codec, unpack(img, grid))

    @torch.no_grad()
    def generate(self, prompt: str, concepts: str, contrast: str = CONTRAST, seed: int = 0,
                 size: tuple[int, int] = (256, 256), steps: int = STEPS, cfg: float = CFG, token: str = "mean",
                 progress: Progress = iter, blocks: str = "auto", shift: float = 1.0) -> tuple[Tensor, Recording]:
        """A picture 1 x 3 x H x W in 0..1 (sides multiples of 16) and its recording. `progress` wraps the steps. blocks: see layers;
        shift: see schedule."""
        levels = schedule(steps, shift)
        vectors, recorder = self._begin(concepts, contrast, levels, size, token, blocks)
        watched = partial(self._watched, vectors=vectors, recorder=recorder)
        picture = self._sample(watched, [prompt], [seed], size, levels, cfg, progress)
        return picture, recorder.finish()["output"]

    @torch.no_grad()
    def repaint(self, prompts: Sequence[str], inside: Sequence[str], seeds: Sequence[int], concepts: str, contrast: str = CONTRAST,
                rule: RegionRule = REGION, start: float = 0.25, weights: Tensor | None = None, size: tuple[int, int] = (256, 256),
                steps: int = STEPS, cfg: float = CFG, shift: float = 1.0) -> tuple[Tensor, Region | None, Recording]:
        """Pictures B x 3 x H x W in 0..1 in which, from `start` of the run on, what becomes of the concepts is drawn from the prompts
        `inside`: as the node Concept Region. Also the region (None where it was given), and the recording of the whole run.

        concepts: the same for all. weights: B x H/8 x W/8 of a region that is known already; see core.live_region. shift: see schedule.
        """
        levels = schedule(steps, shift)
        begin = shifted(1 - start, shift)
        vectors, recorder = self._begin(concepts, contrast, levels, size, "mean", "auto")
        other, region = self.encode_prompts(inside), None

        def velocity(img: Tensor, grid: tuple[int, int], text: Tensor, t: Tensor) -> Tensor:
            nonlocal region, weights
            if weights is None and t[0] <= begin and recorder.steps:
                region = rule.region(recorder.finish(recorder.default_layers)["output"], (2 * grid[0], 2 * grid[1]))
                weights = region.weights
            wanted = self._watched(img, grid, text, t, vectors, recorder)
            if weights is None or t[0] > begin or not weights.any():
                return wanted
            share, _ = pack(weights[:, None].expand(-1, 16, -1, -1))
            return torch.lerp(wanted, self.flux(img, other, t, grid), share)

        pictures = self._sample(velocity, prompts, seeds, size, levels, cfg)
        return pictures, region, recorder.finish()["output"]

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int] = (256, 256), steps: int = STEPS,
             cfg: float = CFG, shift: float = 1.0) -> Tensor:
        """The same pictures without recordings, several at a time: B x 3 x H x W in 0..1."""
        return self._sample(lambda img, grid, text, t: self.flux(img, text, t, grid), prompts, seeds, size, schedule(steps, shift), cfg)

    @torch.no_grad()
    def inpaint(self, latents: Tensor, inside: Tensor, seeds: Sequence[int], steps: int = STEPS, prompts: Sequence[str] | None = None,
                cfg: float = 1.0, erase: bool = False) -> Tensor:
        """Pictures B x 3 x H x W in 0..1, drawn anew where `inside`, B x h x w bool, on the grid of the latents B x 16 x h x w;
        elsewhere these stay as they are, under the noise of every step. prompts: none if not given. erase: see core.erase."""
        noise, grid = pack(torch.cat([torch.randn(one[None].shape, generator=torch.Generator().manual_seed(seed))
                                      for one, seed in zip(latents, seeds, strict=True)]))
        known, anew = pack(latents)[0], pack(inside[:, None].expand_as(latents))[0]
        holes = Hole.all_of(inside, comfyui.PATCH) if erase else None
        img, empty = noise, [""] * len(latents)
        text, without = self.encode_prompts([*(prompts or empty), *empty]).chunk(2)
        for now, then in pairwise(schedule(steps)):
            t = torch.full((len(img),), now)
            velocity = self.flux(img, text, t, grid, holes=holes)
            if cfg != 1:
                velocity = torch.lerp(self.flux(img, without, t, grid, holes=holes), velocity, cfg)
            img = torch.where(anew, img + (then - now) * velocity, (1 - then) * known + then * noise)
        return decode(self.codec, unpack(img, grid))

    @torch.no_grad()
    def record(self, images: Tensor, concepts: str, contrast: str = CONTRAST, captions: Sequence[str] | None = None,
               noise_level: float | None = None, seed: int = 0, token: str = "mean",
               cross_attention: bool = False, self_attention: bool = True, blocks: str = "auto") -> dict[str, Recording]:
        """Recordings, by space, of existing pictures B x 3 x H x W in 0..1 (sides multiples of 16): one forward
        pass at `noise_level` (0 to 1, the model's own if not given), with captions or empty prompts."""
        return self.record_latents(encode(self.codec, images), concepts, contrast, captions, noise_level, seed, token,
                                   cross_attention, self_attention, blocks=blocks)

    @torch.no_grad()
    def record_latents(self, latents: Tensor, concepts: str, contrast: str = CONTRAST, captions: Sequence[str] | None = None,
                       noise_level: float | None = None, seed: int = 0, token: str = "mean",
                       cross_attention: bool = False, self_attention: bool = True, linear: bool = False,
                       blocks: str = "auto") -> dict[str, Recording]:
        """The same for pictures that are encoded already: model latents B x 16 x h x w, even sides. linear: see core.stream."""
        level = self.noise_level if noise_level is None else noise_level
        size = tuple(side * 8 for side in latents.shape[-2:])
        vectors, recorder = self._begin(concepts, contrast, [level, 0.0], size, token, blocks)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        img, grid = pack((1 - level) * latents + level * noise)
        txt = self.encode_prompts(captions or [""] * len(latents))
        self._watched(img, grid, txt, torch.full((len(latents),), level), vectors, recorder, cross_attention,
                      self_attention, linear)
        return recorder.finish()


def schedule(steps: int, shift: float = 1.0) -> list[float]:
    """The noise levels of a run, from 1 to 0, steps + 1 of them. shift: as ComfyUI's ModelSamplingSD3; the larger, the more of them are
    high. 1, as the demo node in ComfyUI, shifts nothing."""
    return [shifted(level, shift) for level in torch.linspace(1, 0, steps + 1).tolist()]


def shifted(level: float, shift: float) -> float:
    """A noise level of an even schedule, 0 to 1, in a shifted one (Esser et al. 2403.03206, equation 23)."""
    return level if shift == 1 else shift * level / (1 + (shift - 1) * level)


def load_defaults(folder: Path = WEIGHTS) -> tuple[Defaults, float]:
    """What "auto" means for the tiny model, and its noise level for existing pictures (found by evaluation)."""
    stored = json.loads((folder / "defaults.json").read_text())
    return Defaults(**stored["defaults"]), stored["noise_level"]
