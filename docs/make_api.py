"""Writes api.md, the page about what Python callers use, from the docstrings: python docs/make_api.py

Sources are parsed, never imported, so that neither torch nor diffusers is needed. A test holds the page to the docstrings.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("api.md")
HEAD = """# What Python callers use

Made from the docstrings by `python docs/make_api.py`. Tensors are torch's; B is pictures, C concepts, H x W pixels, h x w tokens.
`capture` and `saliency_of_image` can be imported from `concept_saliency` itself. A whole script: headless/example.py.
"""
PUBLIC = {  # module -> names, in the order of the page
    "headless/capture.py": ["capture"],
    "headless/image.py": ["saliency_of_image", "record_image"],
    "headless/runs.py": ["Recordings", "Seen"],
    "core/recording.py": ["Recording"],
    "core/saliency.py": ["saliency", "Saliency", "presence"],
    "core/masks.py": ["mask", "Shaping", "soft_masks"],
    "core/regions.py": ["labels", "disjoint_masks", "islands", "instances", "instance_labels", "peaks", "point_prompts"],
    "core/render.py": ["heatmaps", "overlay", "tiles", "label", "sheet", "segmentation", "to_pil", "from_pil"],
    "core/pictures.py": ["read", "as_tensor", "in_folder", "model_size", "resized"],
    "core/families/defaults.py": ["Defaults"]}


def page() -> str:
    """The whole page, as markdown."""
    lines = [HEAD]
    for file, names in PUBLIC.items():
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        found = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        lines += [f"## concept_saliency.{file[:-3].replace('/', '.')}", "", text(tree), ""]
        for name in names:
            lines += of_class(found[name]) if isinstance(found[name], ast.ClassDef) else of_function(found[name], name)
    return "\n".join(lines)


def of_function(node: ast.FunctionDef, name: str) -> Iterator[str]:
    """A function's or a method's part of the page."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    call = textwrap.fill(f"{name}({ast.unparse(node.args)}){result}", 110, subsequent_indent="    ", break_long_words=False)
    yield from (f"### {name}", "", "```python", call, "```", "", text(node), "")


def of_class(node: ast.ClassDef) -> Iterator[str]:
    """A class's part, with its fields, and the methods and properties that say what they do."""
    fields = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign)]
    yield from (f"### {node.name}", "", text(node), "")
    if fields:
        yield from ("```python", *fields, "```", "")
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and ast.get_docstring(part):
            shown = ast.unparse(part.decorator_list[0]) if part.decorator_list else ""
            name = f"{node.name}.{part.name}"
            if shown == "property":
                yield from (f"### {name}", "", text(part), "")
            else:
                part.args.args = part.args.args[1:]  # self, or the class
                yield from of_function(part, name)


def text(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """A docstring as markdown. Raises ValueError where there is none."""
    found = ast.get_docstring(node)
    if not found:
        raise ValueError(f"{getattr(node, 'name', 'a module')} says nothing about itself")
    return inspect.cleandoc(found)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
