"""ConceptAttention (arXiv 2502.04320) in plain PyTorch: knows neither ComfyUI nor any pipeline."""
