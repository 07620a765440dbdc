"""What a node sends to its explorer in the browser (web/js): where the maps and the pictures lie among the host's temporary files.

They are kept and served by the host as every preview is, and go with it when the server starts anew: nothing stays in memory, the
history holds only the names, and the pack needs no route of its own. Pictures are written once, however many nodes show them and
however often their widgets change.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from uuid import uuid4

import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..core import explore
from ..core.saliency import Saliency

KEPT = 16
_written: OrderedDict[tuple, list[dict]] = OrderedDict()  # of the pictures written last: shape and digest, and the host's names of them


def data(saliency: Saliency, image: Tensor | None, **settings) -> dict:
    """Write both; returns what to add to a node's ui output: nothing where the maps are too large.

    image: B x H x W x 3 in 0..1, or None. settings: see core.explore.save.
    """
    folder, name = Path(folder_paths.get_temp_directory()), f"concept_explorer_{uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = explore.save(folder / f"{name}.safetensors", saliency, **settings)
    if not numbers:
        return {}
    pictures = [] if image is None else written(image if len(image) == 1 else image[numbers], folder, name)
    return {"concept_explorer": [{"filename": f"{name}.safetensors", "subfolder": "", "type": "temp", "pictures": pictures}]}


def written(image: Tensor, folder: Path, name: str) -> list[dict]:
    """The host's names of an image's pictures, written now if they are not yet."""
    pixels = image[..., :3].cpu().contiguous()
    key = (*pixels.shape, hashlib.sha256(pixels.numpy().data).digest())
    if key not in _written or not all((folder / one["filename"]).exists() for one in _written[key]):
        rounding = pixels + 0.5 / 255  # the host cuts off what 8 bits do not hold; edges follow the picture here, too
        _written[key] = ui.ImageSaveHelper.save_images(rounding, name, io.FolderType.temp, None, 1)
    _written.move_to_end(key)
    while len(_written) > KEPT:
        _written.popitem(last=False)
    return _written[key]
