"""Save Saliency and Load Saliency: safetensors files in ComfyUI's own folders."""

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..core.saliency import Saliency
from .types import CATEGORY, ConceptSaliencyMaps


class ConceptSaliencySave(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencySave",
            display_name="Save Saliency",
            category=CATEGORY,
            description="Writes saliency maps to a .safetensors file in ComfyUI's output folder.",
            inputs=[
                ConceptSaliencyMaps.Input("saliency", tooltip="From Concept Saliency."),
                io.String.Input("filename_prefix", default="saliency/ComfyUI", tooltip="Folder and beginning of the file's name."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, saliency, filename_prefix) -> io.NodeOutput:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
        file = f"{name}_{counter:05}_.safetensors"
        saliency.save(os.path.join(folder, file))
        return io.NodeOutput(ui={"files": [{"filename": file, "subfolder": subfolder, "type": "output"}]})


class ConceptSaliencyLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyLoad",
            display_name="Load Saliency",
            category=CATEGORY,
            description="Reads a file that Save Saliency wrote, from ComfyUI's input folder. Add [output] to a name to read it from the "
                        "output folder.",
            inputs=[io.String.Input("file", default="", tooltip="Name of the .safetensors file, for example: robots.safetensors or "
                                                                "saliency/ComfyUI_00001_.safetensors [output]")],
            outputs=[ConceptSaliencyMaps.Output("saliency")],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        path = located(file)
        return os.path.getmtime(path) if os.path.isfile(path) else ""

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        path = located(file)
        if not os.path.isfile(path):
            raise ValueError(f"There is no file '{file}' in ComfyUI's folders. Put it into the input folder, or add [output] to its name.")
        return io.NodeOutput(Saliency.load(path))


def located(file: str) -> str:
    """The path of a file in ComfyUI's input folder, or of "name [output]" in its output folder. Raises ValueError outside them."""
    name, folder = folder_paths.annotated_filepath(file.strip())
    folder = os.path.realpath(folder or folder_paths.get_input_directory())
    path = os.path.realpath(os.path.join(folder, name.replace("\0", "")))
    if not name or not Path(path).is_relative_to(folder):
        raise ValueError(f"'{file}' is not a file inside ComfyUI's folders. Give a name such as robots.safetensors.")
    return path
