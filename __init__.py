"""ComfyUI's entry. Nothing of ComfyUI is imported before it asks for the nodes, so that the package can be used without it."""


async def comfy_entrypoint():
    """Called by ComfyUI at start; returns the extension that lists the nodes."""
    from .nodes import ConceptSaliencyExtension

    return ConceptSaliencyExtension()
