"""What "auto" means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """What "auto" means for a family or a model. Layers and the first step are parts of the whole, 0..1.

    first_layer, last_layer: both included, as parts of depth - 1. first_step: sampling progress from
    which steps count. temperature: divides the scores before the softmax over concepts.
    softmax_first: the softmax is taken in every layer and step and averaged after; else before.
    """

    first_layer: float
    last_layer: float
    first_step: float
    temperature: float
    softmax_first: bool

    def __post_init__(self):
        parts = (self.first_layer, self.last_layer, self.first_step)
        if not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in parts) or self.first_layer > self.last_layer or \
                not isinstance(self.temperature, (int, float)) or not 0 < self.temperature < 1e9 or type(self.softmax_first) is not bool:
            raise ValueError(f"{self} cannot be: parts are from 0 to 1, the first layer comes before the last, temperature is above 0")

    def layers(self, depth: int) -> list[int]:
        """The default layers of a model of which `depth` blocks are recorded."""
        return list(range(round(self.first_layer * (depth - 1)), round(self.last_layer * (depth - 1)) + 1))
