"""ComfyUI nodes: one file a node, schema and glue only. What touches the host's model is in host.py."""

from comfy_api.latest import ComfyExtension, io


class ConceptSaliencyExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .concept_attention import ConceptAttentionApply
        from .concept_saliency import ConceptSaliency
        from .demo_model import ConceptSaliencyDemoModel
        from .saliency_to_mask import ConceptSaliencyToMask

        return [ConceptAttentionApply, ConceptSaliency, ConceptSaliencyToMask, ConceptSaliencyDemoModel]
