"""Pictures on their way to the model: which files there are, reading one, and how large it is shown.

Whatever reads a picture reads it here, so that all commands see the same.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from .render import from_pil

# By suffix; those that Pillow cannot read (heic, jxl and raw photographs) are pictures too, and named as unreadable
SUFFIXES = frozenset(".png .apng .jpg .jpeg .jpe .jfif .jp2 .webp .bmp .dib .gif .tif .tiff .avif .ppm .pgm .pnm .tga .psd "
                     ".heic .heif .jxl .dng .cr2 .cr3 .nef .arw".split())
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)  # what Pillow's readers raise
_BITS, _PHOTOMETRIC = 258, 262  # TIFF's tags; scanners and microscopes write 12 bits, and white as 0
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 16-bit pictures Pillow may hold as 32-bit whole numbers
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


class Unreadable(ValueError):
    """A picture file that cannot be read."""


def in_folder(folder: Path, leave_out: Callable[[Path], bool] = lambda sub: False) -> tuple[list[Path], list[Path]]:
    """Picture files in a folder and its sub-folders, linked ones too, by suffix, sorted; links that lead nowhere are among them.

    leave_out: which sub-folders are passed by; these come second. Raises ValueError for a folder that cannot be listed.
    """
    found: list[Path] = []
    left_out: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        one = waiting.pop()
        if one.resolve() in seen:
            continue  # a link back to where we were
        seen.add(one.resolve())
        try:
            entries = list(one.iterdir())
        except OSError as error:
            raise ValueError(f"The folder '{one}' cannot be listed: {error.strerror}.") from error
        for path in entries:
            if path.is_dir():
                (left_out if leave_out(path) else waiting).append(path)
            elif path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink()):
                found.append(path)
    return sorted(found), sorted(left_out)


def read(path: Path) -> Image.Image:
    """A picture file as `upright` gives it. Raises Unreadable."""
    try:
        with Image.open(path) as file:
            return upright(file)
    except _BROKEN as error:
        raise Unreadable(f"'{path}' cannot be read as a picture: {_reason(path, error)}. Replace or remove it.") from error


def _reason(path: Path, error: Exception) -> str:
    if path.is_symlink() and not path.exists():
        return f"it is a link to '{os.readlink(path)}', which is not there"
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged, or in a format that is not known here; save it as PNG or JPEG"
    return str(error).rstrip(".")


def upright(image: Image.Image) -> Image.Image:
    """A picture in 8-bit RGB, turned as its EXIF orientation says, its transparency dropped.

    16 bits become 8; numbers from 0 to 1 become 0 to 255. Raises ValueError where nobody knows which number is white.
    """
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS)
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    bits, white_is_zero = tags.get(_BITS, (16,))[0], tags.get(_PHOTOMETRIC) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("F", "I") and not sixteen_bits:
        if "transparency" in image.info:
            image = image.convert("RGBA")  # else Pillow warns
        return image.convert("RGB")
    if image.mode == "I" and not sixteen_bits:
        raise ValueError("its pixels are 32-bit whole numbers, of which nobody knows which is white; save it with 8 or 16 bits")
    grey = np.asarray(image).astype(np.float64) / (2**bits - 1 if sixteen_bits else 1)
    if not (grey.min() >= 0 and grey.max() <= 1):  # what is not a number is neither
        raise ValueError(f"its pixels are numbers from {grey.min():g} to {grey.max():g}, expected 0 (black) to 1 (white); "
                         "save it with 8 or 16 bits")
    return Image.fromarray(((1 - grey if white_is_zero else grey) * 255).round().astype(np.uint8)).convert("RGB")


def as_tensor(image: Image.Image) -> Tensor:
    """A picture as `upright` gives it -> 1 x 3 x H x W in 0..1."""
    return from_pil(upright(image)).permute(0, 3, 1, 2).contiguous()
