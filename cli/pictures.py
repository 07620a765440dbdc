"""Picture files: which there are in a folder, and reading one."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from ..core.render import from_pil

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".tga"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)  # what Pillow's readers raise


class Unreadable(ValueError):
    """A picture file that cannot be read."""


def in_folder(folder: Path, leave_out: Path) -> list[Path]:
    """Picture files in a folder and its sub-folders, by suffix, sorted, less those in the folder `leave_out`."""
    leave_out = leave_out.resolve()
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
                  and leave_out not in path.resolve().parents)


def read(path: Path) -> Tensor:
    """A picture 1 x 3 x H x W in 0..1, upright, its transparency dropped. Raises Unreadable."""
    try:
        with Image.open(path) as file:
            return from_pil(ImageOps.exif_transpose(file)).permute(0, 3, 1, 2).contiguous()
    except _BROKEN as error:
        raise Unreadable(f"'{path}' cannot be read as a picture: {error}. Replace or remove it.") from error
