"""The heatmaps so far, shown on the Concept Attention node while its model is sampled, once a step.

They go the way that every node's progress goes, with our node's number in place of the sampler's: its own preview stays where it is.
A frontend that cannot tell whose a preview is gets none. Nothing is put on the model.
Source: comfy_execution/progress.py.
"""

from __future__ import annotations

import math

from comfy.cli_args import args
from comfy_execution.progress import NodeState, get_progress_state
from comfy_execution.utils import get_executing_context
from PIL import Image

from ..core import render
from ..core.live import LiveSaliency
from ..core.recording import Recorder
from ..core.saliency import Saliency

SIDE = 512  # pixels of the preview's longer side, about


class LivePreview:
    """Where the maps of a run are shown."""

    def __init__(self, node_id: str):
        self.node_id = node_id

    @classmethod
    def of_running_node(cls) -> LivePreview | None:
        """On the node that ComfyUI runs at this moment; None outside a workflow."""
        running = get_executing_context()
        return None if running is None else cls(running.node_id)

    def after(self, callback, recorder: Recorder):
        """What a sampler calls after every step: `callback`, or None, as before, and then the maps are shown."""
        live = LiveSaliency(recorder)

        def called(step: int, denoised, x, total: int):
            if callback is not None:
                callback(step, denoised, x, total)
            shown = live.newest()
            if shown is not None:
                self.show(picture(shown), step + 1, total)

        return called

    def show(self, image: Image.Image, done: int, total: int) -> None:
        """Tell ComfyUI's progress handlers, without a change to what it knows of the node: that has run."""
        progress = get_progress_state()
        state = {"state": NodeState.Finished, "value": done, "max": total}
        for handler in progress.handlers.values():
            if handler.enabled:
                handler.update_handler(self.node_id, done, total, state, progress.prompt_id, ("JPEG", image, args.preview_size))


def picture(shown: Saliency) -> Image.Image:
    """The heatmaps of one picture side by side, each under its concept's name and presence so far."""
    columns = math.ceil(math.sqrt(len(shown.concepts)))
    scale = SIDE / columns / max(shown.image_size)
    height, width = (max(1, round(side * scale)) for side in shown.image_size)
    small = shown.at_size((height, width))
    return render.to_pil(render.sheet(list(render.tiles(small, small.pixels(small.maps))), columns, gap=2))
