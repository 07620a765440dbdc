"""Pictures on their way to the model: how large it is shown them."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import interpolate

MEGAPIXEL = 2**20  # 1024 x 1024, what Flux draws
_LARGER = 1.05  # that much more does no harm; Kontext's own sizes, for one, are up to 1.3% above a megapixel
_SMALLER = 0.93  # of the shorter side, given up for sides that are nearer the picture's aspect


def model_size(height: int, width: int, megapixels: float = 1.0, patch: int = 16) -> tuple[int, int]:
    """The size (H, W) in which the model is shown a picture of height x width pixels.

    megapixels: of 1024 x 1024 pixels, which a picture is reduced to; 0 for no limit. A picture that is no larger keeps
    its own size. Of the sizes a little below the limit whose sides are multiples of `patch`, it is the one nearest the
    picture's aspect. Raises ValueError for a limit that is none.
    """
    if not 0 <= megapixels < math.inf:
        raise ValueError(f"megapixels is {megapixels:g}, expected 0 (the picture's own size) or more, for example 1.0")
    limit = megapixels * MEGAPIXEL
    tokens = math.ceil(height / patch) * math.ceil(width / patch)
    if not limit or tokens * patch**2 <= _LARGER * limit:
        return height, width
    short, long = sorted((height, width))
    ideal = math.sqrt(limit * short / long) / patch
    sides = []
    fewest = max(1, min(math.floor(ideal), math.ceil(_SMALLER * ideal)))
    for rows in range(max(1, math.ceil(ideal)), fewest - 1, -1):
        most = max(1, math.floor(limit / patch**2 / rows))
        sides.append((rows * patch, min(most, max(1, round(rows * long / short))) * patch))
    best = min(sides, key=lambda size: abs(math.log(size[0] * long / (size[1] * short))))
    return best if height <= width else best[::-1]


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures B x C x H x W in 0..1 at another `size` (H, W), without aliasing; the same tensor where nothing changes."""
    if tuple(pictures.shape[-2:]) == tuple(size):
        return pictures
    return interpolate(pictures, size=size, mode="bicubic", antialias=True).clamp(0, 1)
