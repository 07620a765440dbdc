"""What "auto" means."""

from __future__ import annotations

from dataclasses import dataclass

# Where a setting `blocks` lets concept tokens go on to after the double-stream blocks: through so many single-stream ones, None for all
BLOCKS = {"double": 0, "double and first single": 1, "all": None}


@dataclass(frozen=True)
class Defaults:
    """What "auto" means for a family or a model. Layers and the first step are parts of the whole, 0..1.

    first_layer, last_layer: both included, as parts of depth - 1; where single-stream blocks follow, depth is that of the
    double-stream ones. first_step: sampling progress from which steps count. temperature: divides the scores before the
    softmax over concepts. softmax_first: the softmax is taken in every layer and step and averaged after; else before.
    singles: through how many single-stream blocks the concepts go on, all of which count.
    """

    first_layer: float
    last_layer: float
    first_step: float
    temperature: float
    softmax_first: bool
    singles: int = 0

    def __post_init__(self):
        parts = (self.first_layer, self.last_layer, self.first_step)
        if not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in parts) or self.first_layer > self.last_layer or \
                not isinstance(self.temperature, (int, float)) or not 0 < self.temperature < 1e9 or \
                type(self.softmax_first) is not bool or type(self.singles) is not int or self.singles < 0:
            raise ValueError(f"{self} cannot be: parts are from 0 to 1, the first layer comes before the last, temperature is above 0, "
                             "singles a whole number")

    def layers(self, depth: int, singles: int = 0) -> list[int]:
        """The default layers of a model of which `depth` blocks are recorded, the last `singles` of them single-stream.

        Who has more of these recorded than is the default sees the first of them used.
        """
        double = depth - singles
        counted = min(singles, max(1, self.singles))
        return [*range(round(self.first_layer * (double - 1)), round(self.last_layer * (double - 1)) + 1), *range(double, double + counted)]

    def singles_of(self, blocks: str) -> int | None:
        """Through how many single-stream blocks a setting `blocks`, "auto" or one of BLOCKS, lets concepts go on; None for all.

        Raises ValueError for any other.
        """
        if blocks == "auto":
            return self.singles
        if blocks not in BLOCKS:
            raise ValueError(f"blocks is {blocks!r}, expected auto, {', '.join(BLOCKS)}")
        return BLOCKS[blocks]
