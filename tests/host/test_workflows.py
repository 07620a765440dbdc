"""Every workflow in workflows/ runs on a real server, with its loaders swapped for the tiny Flux and its words for the tiny world's."""

import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from concept_saliency.core.concepts import DEFAULT_CONTRAST
from concept_saliency.demo.world import CONTRAST, make_scene
from conftest import HOST, REPOSITORY
from live_server import Server, to_api
from PIL import Image

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
LOADERS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
# the workflows' own words -> words of the tiny world
WORDS = {
    DEFAULT_CONTRAST: CONTRAST,
    "dragon, castle, sky": "dragon, house, grass",
    "a dragon on the roof of a castle under a cloudy sky": "a dragon and a house on grass",
    "cat, sofa": "cat, tree",
    "a cat on a sofa": "a cat and a tree on grass",
    "a golden retriever sitting on a sofa": "a robot and a tree on grass",
    "a cat in a field of lavender at sunset": "a cat on sand",
    "a teddy bear sitting on a sofa": "a balloon and a tree on grass",
    "a cat and a dog on a sofa": "a cat and a robot on grass",
    "cat, dog": "cat, robot",
    "a white persian cat": "a flower",
    "a black labrador": "a balloon",
    "dog": "robot",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(HOST, tmp_path_factory.mktemp("comfyui")) as running:
        scene = next(s for s in map(make_scene, itertools.count(1_000_000)) if set(s.things) == {"cat", "tree"} and s.ground == "grass")
        Image.fromarray(scene.image).save(running.folder / "input" / "example.png")
        running.scene = scene
        yield running


def on_the_tiny_flux(prompt: dict) -> dict:
    """The same workflow with the demo model, the tiny world's words and its size."""
    swapped = {number: LOADERS[node["class_type"]] for number, node in prompt.items() if node["class_type"] in LOADERS}
    prompt = {number: node for number, node in prompt.items() if number not in swapped}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in swapped:
                node["inputs"][name] = ["demo", swapped[value[0]]]
            elif isinstance(value, str):
                node["inputs"][name] = WORDS.get(value, value)
        for name in {"width", "height"} & node["inputs"].keys():
            node["inputs"][name] = 256
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=20, cfg=3.0)
        if node["class_type"] == "ConceptAttentionImage":
            node["inputs"]["noise_level"] = 0.6  # where the tiny Flux sees best
    if swapped:
        prompt["demo"] = {"class_type": "ConceptSaliencyDemoModel", "inputs": {}}
    return prompt


def pixels(server, outputs, number) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(server.image(outputs[number]["images"][0]))).convert("RGB"), dtype=np.int16)


def titled(workflow: dict, title: str) -> str:
    return next(str(n["id"]) for n in workflow["nodes"] if n.get("title") == title)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflow(server, path):
    workflow, info = json.loads(path.read_text()), server.get("/object_info")
    kinds = {n["type"] for n in workflow["nodes"]} - {"MarkdownNote"}
    if missing := kinds - info.keys():
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    prompt = on_the_tiny_flux(to_api(workflow, info))
    without_weights = [n for n, node in prompt.items() if node["class_type"] in ("CheckpointLoaderSimple", "SAM3_Detect", "MaskPreview")]
    for number in without_weights:  # SAM3's weights are not to be had; its prompts are checked up to its door
        del prompt[number]
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]
    outputs = entry["outputs"]
    save_pictures(server, path.stem, workflow, info, outputs)
    if any(n.get("title") == "After" for n in workflow["nodes"]):
        before, after = (pixels(server, outputs, titled(workflow, t)) for t in ("Before", "After"))
        mask_node = next(n for n, node in prompt.items() if node["class_type"] == "ConceptSaliencyToMask")
        mask = pixels(server, outputs, mask_node)[..., 0]
        outside = np.abs(after - before)[mask == 0].max()
        inside = np.abs(after - before)[mask == 255].mean()
        subject = server.scene.masks["cat"]
        share = (mask[subject] > 127).mean(), (mask[~subject] > 127).mean()
        print(f"{path.stem}: outside the mask the largest change is {outside}/255, inside the mean change is {inside:.1f}/255; "
              f"mask over {share[0]:.0%} of the cat and {share[1]:.0%} of the rest")
        assert outside == 0 and inside > 5
    if "ConceptSaliencyToSAM3" in kinds:
        points = json.loads(outputs[titled(workflow, "Points inside")]["text"][0])
        assert points and all(server.scene.masks["cat"][p["y"], p["x"]] for p in points[:1])


def save_pictures(server, name, workflow, info, outputs) -> None:
    """A contact sheet of everything the workflow shows, where CONTACT_SHEETS says."""
    if not (folder := os.environ.get("CONTACT_SHEETS")):
        return
    from concept_saliency.core import render

    titles = {str(n["id"]): n.get("title") or info[n["type"]]["display_name"] for n in workflow["nodes"] if n["type"] in info}
    shown = []
    for number in sorted(outputs, key=lambda n: (len(n), n)):
        for reference in outputs[number].get("images", []):
            picture = Image.open(io.BytesIO(server.image(reference))).convert("RGB")
            picture = picture.resize((256, round(256 * picture.height / picture.width)))
            shown.append(render.label(torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255), titles.get(number, "")))
    Path(folder).mkdir(exist_ok=True)
    render.to_pil(render.sheet(shown, columns=min(4, len(shown)))).save(Path(folder) / f"{name}.png")
