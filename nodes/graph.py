"""What the workflow says before anything is sampled, so that a slip of the pen costs no minutes."""

from __future__ import annotations

from ..core.concepts import parse_concepts, rows_of


def check_concept(node, concept: str) -> None:
    """Raise ValueError when the Concept Attention whose saliency this node is fed with records no such concept.

    node: the running node class, with the hidden inputs unique_id and prompt (ComfyUI's API format). Where the words do
    not stand in the workflow itself (another node makes them, or a file), nothing is said.
    """
    prompt = node.hidden.prompt or {}
    typed = _value(prompt, _value(prompt, _value(prompt, [node.hidden.unique_id], "saliency"), "recordings"), "concepts")
    if not isinstance(typed, str):
        return
    try:
        known = parse_concepts(typed)
    except ValueError:
        return  # the node where they are typed says so itself
    rows_of(concept, [one.name for one in known])


def still_needed(inputs: dict) -> list[str]:
    """The connected inputs that are yet to be computed: what check_lazy_status has to return."""
    return [name for name, value in inputs.items() if value is None]


def _value(prompt: dict, link, name: str):
    """The input `name` of the node that a link [number, output] comes from; None where there is none."""
    node = prompt.get(str(link[0])) if isinstance(link, list) else None
    return (node or {}).get("inputs", {}).get(name)
