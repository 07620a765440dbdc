"""ComfyUI nodes: one file a node, schema and glue only. What is put on the host's model is in capture.py, live_region.py and eraser.py."""

from comfy_api.latest import ComfyExtension, io


class ConceptSaliencyExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .concept_attention import ConceptAttentionApply
        from .concept_attention_image import ConceptAttentionImage
        from .concept_region import ConceptRegion
        from .concept_saliency import ConceptSaliency
        from .demo_model import ConceptSaliencyDemoModel
        from .erase_under_mask import ConceptErase
        from .saliency_files import ConceptSaliencyLoad, ConceptSaliencySave
        from .saliency_overlay import ConceptSaliencyOverlay
        from .saliency_segmentation import ConceptSaliencySegmentation
        from .saliency_to_mask import ConceptSaliencyToMask
        from .saliency_to_segs import ConceptSaliencyToSEGS

        nodes = [ConceptAttentionApply, ConceptAttentionImage, ConceptRegion, ConceptErase, ConceptSaliency, ConceptSaliencyToMask,
                 ConceptSaliencyOverlay, ConceptSaliencySegmentation, ConceptSaliencyToSEGS, ConceptSaliencySave, ConceptSaliencyLoad,
                 ConceptSaliencyDemoModel]
        if hasattr(io, "BoundingBox"):  # 0.3.64 has neither this type nor SAM3
            from .saliency_to_sam3 import ConceptSaliencyToSAM3

            nodes.append(ConceptSaliencyToSAM3)
        return nodes
