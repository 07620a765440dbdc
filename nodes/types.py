"""The pack's own socket types, defined once, and its place in the menu."""

from comfy_api.latest import io

ConceptRecordings = io.Custom("CONCEPT_RECORDINGS")
ConceptSaliencyMaps = io.Custom("CONCEPT_SALIENCY")
CATEGORY = "concept saliency"
