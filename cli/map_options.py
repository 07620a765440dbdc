"""Ways to make maps and masks that are measured against the current one: what cli/evaluate_options.py takes by name.

Those that did not win are gone again; demo/EVALUATION.md says what they were and their figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import masks
from ..core.recording import Recording
from ..core.saliency import Saliency, saliency
from ..demo.codec import encode
from ..demo.hard_world import make_hard_scene
from ..demo.pipeline import TinyFlux
from ..demo.world import CONTRAST, THINGS, make_scene

ABSENT = 2


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


def current_maps(recording: Recording, layers: str = "auto") -> Saliency:
    """What Concept Saliency makes of a recording."""
    return saliency(recording, layers)


def current_mask(maps: Saliency, concept: str, image: Tensor, method: str = "auto", refined: bool = True) -> Tensor:
    """What Saliency to Mask makes of it, H x W bool."""
    return masks.mask(maps, concept, method, image=image if refined else None)[0] > 0.5


def equal_rivals(maps: Saliency, concept: str, image: Tensor) -> Tensor:
    """The method "auto" without `against_prevailing`, as it was before."""
    rows = [maps.index(concept)]
    refined = masks.refine(maps.pixels(maps.maps[:, rows]), image, masks.token_size(maps))
    return masks.without_specks(masks.automatic(maps, rows, refined)[0])


@dataclass(frozen=True)
class Option:
    """From a scene's recording to maps and masks."""

    maps: Callable[[Recording], Saliency] = current_maps
    mask: Callable[[Saliency, str, Tensor], Tensor] = current_mask


# The first is what the others are measured against
OPTIONS = {
    "current": Option(),
    "equal rivals": Option(mask=equal_rivals),
    "the paper's mask": Option(mask=partial(current_mask, method="mean", refined=False)),
    "otsu": Option(mask=partial(current_mask, method="otsu")),
    "all layers": Option(partial(current_maps, layers="0-3")),
    "double blocks": Option(partial(current_maps, layers="0-2")),
}
