"""ComfyUI's entry, and what Python callers import. Nothing of ComfyUI or diffusers is imported before it is asked for, so that
the package can be used without either."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .headless.capture import capture
    from .headless.image import saliency_of_image

__all__ = ["__version__", "capture", "saliency_of_image"]
__version__ = "0.2.0"

WEB_DIRECTORY = "web"  # served by ComfyUI: the nodes' help pages, docs/<node_id>.md and docs/<node_id>/<language>.md
_LAZY = {"capture": "capture", "saliency_of_image": "image"}  # name -> module in headless


async def comfy_entrypoint():
    """Called by ComfyUI at start; returns the extension that lists the nodes."""
    from .nodes import ConceptSaliencyExtension

    return ConceptSaliencyExtension()


def __getattr__(name: str):
    """concept_saliency.capture and concept_saliency.saliency_of_image, for pipelines of diffusers."""
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f".headless.{_LAZY[name]}", __name__), name)
