"""ConceptAttention for pipelines of diffusers, without ComfyUI."""
