"""The pack's own socket types, defined once, its place in the menu, and what not every host's schemas take."""

import inspect

from comfy_api.latest import io

ConceptRecordings = io.Custom("CONCEPT_RECORDINGS")
ConceptSaliencyMaps = io.Custom("CONCEPT_SALIENCY")
CATEGORY = "concept saliency"
MAPS, MASKS = ["attention map", "heatmap", "DAAM"], ["word mask", "text to mask", "mask by text", "inpaint mask", "segmentation"]


def taken(kind: type, **fields) -> dict:
    """Those of `fields` that this host's `kind` takes. 0.3.64 lacks some, and one that is unknown would drop the whole pack."""
    return {name: value for name, value in fields.items() if name in inspect.signature(kind).parameters}


def rarely_used(kind: type) -> dict:
    """What hides a widget until more are asked for, where the host can."""
    return taken(kind, advanced=True)


def found_by(*words: str) -> dict:
    """What a schema is also found by in the node search, where the host can."""
    return taken(io.Schema, search_aliases=list(words))
