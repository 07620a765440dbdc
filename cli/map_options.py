"""Ways to make maps and masks that are measured against the current one: what cli/evaluate_options.py takes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import masks
from ..core.recording import Recording, joined
from ..core.saliency import Saliency, presence, saliency
from ..demo.codec import encode
from ..demo.hard_world import make_hard_scene
from ..demo.pipeline import TinyFlux
from ..demo.world import CONTRAST, THINGS, make_scene

ABSENT = 2
TEMPERATURES = {"output": 0.0, "cross-attention": 10.0}  # 0: the model's own; the other space's as evaluate_things chose it


class Case(NamedTuple):
    """A scene that is asked about. image: 1 x H x W x 3 in 0..1; latents: the model's; things: word -> H x W bool, what is there;
    absent: words for what is not; ground: what they stand on; kind: one of demo.hard_world.KINDS, or "plain"."""

    seed: int
    image: Tensor
    latents: Tensor
    things: dict[str, Tensor]
    absent: tuple[str, ...]
    ground: str
    kind: str

    @property
    def concepts(self) -> str:
        return ", ".join([*self.things, *self.absent])


def case(model: TinyFlux, seed: int, hard: bool) -> Case:
    """The scene of a seed, of the plain world or the hard one, and two things that are not in it."""
    made = make_hard_scene(seed) if hard else make_scene(seed)
    image = torch.from_numpy(made.image.copy())[None].float() / 255
    others = [thing for thing in THINGS if thing not in made.things]
    absent = tuple(others[(seed + i * len(others) // ABSENT) % len(others)] for i in range(ABSENT))
    return Case(seed, image, encode(model.codec, image.movedim(-1, 1)), {t: torch.from_numpy(made.masks[t]) for t in made.things}, absent,
                made.ground, getattr(made, "kind", "plain"))


def one_pass(model: TinyFlux, case: Case) -> dict[str, Recording]:
    """Both spaces' recordings, one pass at the model's own noise level, against every ground."""
    return model.record_latents(case.latents, case.concepts, CONTRAST, seed=case.seed, cross_attention=True)


def stop_words(model: TinyFlux, case: Case) -> dict[str, Recording]:
    """The same with a prompt's stop words as rivals, too, which attract attention for no reason (RefAM, 2509.22650)."""
    return model.record_latents(case.latents, case.concepts, f"{CONTRAST}, a, and, on, of, picture, background", seed=case.seed,
                                cross_attention=True)


def prompt_words(model: TinyFlux, case: Case) -> dict[str, Recording]:
    """The same with the grounds of a prompt alone as rivals: what a caption names beside the things, here the scene's own ground."""
    return model.record_latents(case.latents, case.concepts, case.ground, seed=case.seed, cross_attention=True)


def two_noises(model: TinyFlux, case: Case) -> dict[str, Recording]:
    """The mean of two passes with different noise."""
    passes = [model.record_latents(case.latents, case.concepts, CONTRAST, seed=seed, cross_attention=True)
              for seed in (case.seed, case.seed + 1)]
    return {space: joined([one[space] for one in passes]) for space in passes[0]}


def current_maps(recording: Recording, layers: str = "auto", temperature: float = 0.0) -> Saliency:
    """What Concept Saliency makes of a recording."""
    return saliency(recording, layers, temperature=temperature or TEMPERATURES[recording.space])


def separating_maps(recording: Recording) -> Saliency:
    """All layers, each weighted by how well it separates this picture's concepts: the variance of its shares between patches."""
    parts = [current_maps(recording, str(layer)) for layer in recording.layers]
    both = [torch.cat((part.maps, part.contrast_maps), dim=1) for part in parts]
    weights = torch.stack([one.var(dim=(2, 3)).mean() for one in both])
    whole = sum(one * weight for one, weight in zip(both, weights / weights.sum()))
    count = len(recording.concepts)
    return replace(parts[0], maps=whole[:, :count], contrast_maps=whole[:, count:], presence=presence(whole[:, :count]))


def current_mask(maps: Saliency, concept: str, image: Tensor, method: str = "auto", refined: bool = True) -> Tensor:
    """What Saliency to Mask makes of it, H x W bool."""
    return masks.mask(maps, concept, method, image=image if refined else None)[0] > 0.5


def equal_rivals(maps: Saliency, concept: str, image: Tensor) -> Tensor:
    """The method "auto" without `against_prevailing`, as it was before."""
    rows = [maps.index(concept)]
    refined = masks.refine(maps.pixels(maps.maps[:, rows]), image, masks.token_size(maps))
    return masks.without_specks(masks.automatic(maps, rows, refined)[0])


def refined_twice(maps: Saliency, concept: str, image: Tensor) -> Tensor:
    """The current mask of a map that has been refined before: a second round of the guided filter."""
    rows = [maps.index(concept)]
    refined = maps.pixels(masks.against_prevailing(maps)[:, rows])
    for _ in range(2):
        refined = masks.refine(refined, image, masks.token_size(maps))
    return masks.without_specks(masks.automatic(maps, rows, refined)[0])


@dataclass(frozen=True)
class Option:
    """From a scene to maps and masks. Options with the same `record` read the same recordings of a scene."""

    record: Callable[[TinyFlux, Case], dict[str, Recording]] = one_pass
    maps: Callable[[Recording], Saliency] = current_maps
    mask: Callable[[Saliency, str, Tensor], Tensor] = current_mask


double_blocks, all_layers = partial(current_maps, layers="0-2"), partial(current_maps, layers="0-3")

# The first is what the others are measured against
OPTIONS = {
    "equal rivals": Option(mask=equal_rivals),
    "current": Option(),
    "the paper's mask": Option(mask=partial(current_mask, method="mean", refined=False)),
    "otsu": Option(mask=partial(current_mask, method="otsu")),
    "all layers": Option(maps=all_layers),
    "separating layers": Option(maps=separating_maps),
    "double blocks": Option(maps=double_blocks),
    "refined twice": Option(mask=refined_twice),
    "stop words": Option(stop_words),
    "prompt words": Option(prompt_words),
    "two noises": Option(two_noises),
}
