"""Every workflow in workflows/ runs on a real server: the demo's as they are, Flux's on the tiny Flux in its loaders' place,
with words of the tiny world.

In few steps, but for THUMBNAILS=1, which makes the cards of the template browser: THUMBNAILS=1 python3 tests/host -k test_workflow
"""

import io
import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
from concept_saliency.core.concepts import DEFAULT_CONTRAST
from concept_saliency.demo.pipeline import LORA
from concept_saliency.demo.workflow_parts import ANEW, EARLY, STRONGLY
from concept_saliency.demo.world import CONTRAST, make_scene
from conftest import REPOSITORY
from live_server import to_api
from PIL import Image
from thumbnails import thumbnail, with_points

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
LOADERS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
FEW_STEPS = 8  # enough to tell whether it works; regions need their own many, for words must be found before things are drawn
HEAT, MASK, BOXES = "Concept Saliency", "Saliency to Mask", "Boxes"
SHOWN = {  # what each card shows: titles of nodes, and which of their pictures
    "quickstart_demo": [("Picture", 0), (HEAT, 0), (HEAT, 1), (MASK, 0)],
    "generate_see_mask": [("Picture", 0), (HEAT, 0), (HEAT, 1), (MASK, 0)],
    "repaint_by_words": [("Before", 0), ("After", 0)],
    "erase_by_words": [("Before", 0), ("After", 0)],
    "change_background": [("Before", 0), ("After", 0)],
    "flux_fill_inpainting": [(MASK, 0), ("After", 0)],
    "sam3_prompts": [(HEAT, 0), (BOXES, 0)],
    "live_regions": [("Without", 0), ("With regions", 0), ("First region", 0), ("Second region", 0)],
    "lora_in_a_region": [("Without", 0), ("With regions", 0)],
    "two_concepts_two_prompts": [("Before", 0), ("From three prompts", 0), ("First thing", 0), ("Second thing", 0)],
}


@dataclass
class Tiny:
    """What takes the place of a workflow's own words on the tiny Flux, and of its picture: the scene of a seed. early: see
    demo.workflow_parts."""

    scene: int | None
    words: dict[str, str]
    early: bool = False


ON_THE_TINY_FLUX = {
    "generate_see_mask": Tiny(None, {
        "dragon, castle, sky": "flower, fish, sand", "dragon": "flower",
        "a dragon on the roof of a castle under a cloudy sky": "a fish and a flower on sand"}),
    "repaint_by_words": Tiny(1010907, {
        "dress, face, hair, sky, hill": "apple, boat", "dress": "apple", "a child's drawing of a girl": "an apple and a boat on sand",
        "raincoat": "a sun on sand"}),
    "erase_by_words": Tiny(1011037, {
        "girl, sky, hill, clouds": "dragon, house", "girl": "dragon", "a child's drawing of a girl": "a house and a dragon on water"}),
    "change_background": Tiny(1000064, {
        "girl, sky, hill, clouds": "robot, brick", "girl": "robot", "a child's drawing of a girl": "a robot on brick",
        "moon": "a robot on water"}),
    "flux_fill_inpainting": Tiny(1002047, {
        "clouds, girl, sky, hill": "car, flower", "clouds": "car", "a child's drawing of a girl": "a car and a flower on floor",
        "balloons": "a balloon and a flower on floor"}),
    "sam3_prompts": Tiny(1001549, {
        "girl, sky, hill, clouds": "dragon, moon", "girl": "dragon", "a child's drawing of a girl": "a dragon and a moon on night"}),
    "two_concepts_two_prompts": Tiny(None, {
        "cat, dog": "person, tree", "cat": "person", "dog": "tree", "a cat and a dog on a sofa": "a person and a tree on snow",
        "a white persian cat": "a house on snow", "a black labrador": "an apple on snow"}),
    "live_regions": Tiny(None, {
        "knight": "cat", "wizard": "balloon", "a knight": "a cat and a balloon on snow", "an astronaut": "a robot on snow",
        "a fisherman": "a balloon on snow"}, early=True),
    "lora_in_a_region": Tiny(None, {
        "castle, sky": "tree", "dragon": "dragon", "a dragon on the roof of a castle": "a dragon and a tree on snow"}),
}


def on_the_tiny_flux(prompt: dict, tiny: Tiny) -> dict:
    """The same workflow with the demo model, the tiny world's words and its size."""
    swapped = {number: LOADERS[node["class_type"]] for number, node in prompt.items() if node["class_type"] in LOADERS}
    prompt = {number: node for number, node in prompt.items() if number not in swapped} | {
        "demo": {"class_type": "ConceptSaliencyDemoModel", "inputs": {}}}
    for node in prompt.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, list) and value[0] in swapped:
                inputs[name] = ["demo", swapped[value[0]]]
        for name in {"concepts", "concept", "text"} & inputs.keys():
            if inputs[name]:
                inputs[name] = in_the_tiny_world(inputs[name], tiny.words)
        if "contrast" in inputs:
            assert inputs["contrast"].endswith(DEFAULT_CONTRAST)
            rivals = inputs["contrast"].removesuffix(DEFAULT_CONTRAST).removesuffix(", ")
            inputs["contrast"] = f"{tiny.words[rivals]}, {CONTRAST}" if rivals else CONTRAST
        inputs.update(dict.fromkeys({"width", "height"} & inputs.keys(), 256))
        inputs.update({name: inputs[name] // 4 for name in {"grow", "feather"} & inputs.keys()})
        if node["class_type"] == "KSampler":
            inputs.update(cfg=3.0, **(ANEW if tiny.early else {}))
        if tiny.early and node["class_type"] == "ConceptRegion":
            inputs.update(EARLY)
        if tiny.early and node["class_type"] == "ConceptSaliency":
            inputs["end_percent"] = round(EARLY["start_percent"] - 0.01, 2)
        if node["class_type"] == "ConditioningSetMask":
            inputs.update(STRONGLY)
        if node["class_type"] == "CreateHookLora":
            inputs["lora_name"] = LORA.name
        if node["class_type"] == "ConceptAttentionImage":
            inputs["noise_level"] = 0.3  # where the tiny Flux sees best
    return prompt


def in_the_tiny_world(text: str, words: dict[str, str]) -> str:
    """What stands for a text; long ones are known by a part of them, the later entry first."""
    if text in words:
        return words[text]
    return next(new for old, new in reversed(words.items()) if len(text) > 40 and old in text)


def picture(server, reference: dict) -> Image.Image:
    return Image.open(io.BytesIO(server.image(reference))).convert("RGB")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflow(server, path):
    workflow, info = json.loads(path.read_text(encoding="utf-8")), server.get("/object_info")
    kinds = {n["type"] for n in workflow["nodes"]} - {"MarkdownNote"}
    if missing := kinds - info.keys():
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    prompt, tiny, scene = to_api(workflow, info), ON_THE_TINY_FLUX.get(path.stem), None
    assert (tiny is None) == path.stem.endswith("demo)") or path.stem == "quickstart_demo"
    if tiny is not None:
        prompt = on_the_tiny_flux(prompt, tiny)
        if tiny.scene is not None:
            scene = make_scene(tiny.scene)
            Image.fromarray(scene.image).save(server.folder / "input" / "example.png")
    for number in [n for n, node in prompt.items() if node["class_type"] in ("CheckpointLoaderSimple", "SAM3_Detect", "MaskPreview")]:
        del prompt[number]  # SAM3's weights are not to be had; its prompts are checked up to its door
    for node in prompt.values():
        if node["class_type"] == "KSampler" and "THUMBNAILS" not in os.environ and "Without" not in titles_of(workflow):
            node["inputs"]["steps"] = FEW_STEPS
    masks = [n for n, node in prompt.items() if node["class_type"] == "ConceptSaliencyToMask"]
    for number in masks:
        prompt[f"mask {number}"] = {"class_type": "MaskPreview", "inputs": {"mask": [number, 0]}}
    places = [n for n, node in prompt.items() if node["class_type"] == "ConceptSaliency"] if "Without" in titles_of(workflow) else []
    for number in places:
        prompt[f"place {number}"] = {"class_type": "ConceptSaliencyToMask", "inputs": {
            "saliency": [number, 0], "concept": "", "method": "auto", "threshold": 0.5, "grow": 4, "feather": 0, "fill_holes": False,
            "min_area": 0, "invert": False, "refine": False}}
        prompt[f"mask {number}"] = {"class_type": "MaskPreview", "inputs": {"mask": [f"place {number}", 0]}}
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]
    outputs = entry["outputs"]
    titles = {str(n["id"]): n.get("title") or info[n["type"]]["display_name"] for n in workflow["nodes"] if n["type"] in info}
    shown = {titles[n]: [picture(server, i) for i in o["images"]] for n, o in outputs.items() if n in titles and "images" in o}
    points = {titles[n]: json.loads(o["text"][0]) for n, o in outputs.items() if n in titles and "text" in o}
    if "After" in shown:
        mask = np.asarray(picture(server, outputs[f"mask {masks[0]}"]["images"][0]))[..., 0]
        check_only_the_mask_changed(path.stem, shown["Before"][0], shown["After"][0], mask, scene)
    if places:
        mask = np.max([np.asarray(picture(server, outputs[f"mask {n}"]["images"][0]))[..., 0] for n in places], axis=0)
        check_the_regions_changed(path.stem, shown["Without"][0], shown["With regions"][0], mask)
    if points:
        assert points["Points inside"]
        if scene is not None:
            assert all(scene.masks["dragon"][p["y"], p["x"]] for p in points["Points inside"][:1])
    if os.environ.get("THUMBNAILS"):
        if BOXES in shown:
            shown[BOXES] = [with_points(shown[BOXES][0], points["Points inside"], points["Points outside"])]
        chosen = [shown[title][number] for title, number in SHOWN[path.stem.removesuffix(" (demo)")]]
        middle = middle_of(mask) if "After" in shown or places else 0.5
        if points:
            middle = np.mean([p["x"] for p in points["Points inside"]]) / shown[BOXES][0].width
        thumbnail(chosen, middle).save(path.with_suffix(".jpg"), quality=88)


def titles_of(workflow: dict) -> set[str]:
    return {node.get("title") for node in workflow["nodes"]}


def middle_of(mask: np.ndarray) -> float:
    """Where from left to right the smaller part of a mask lies: what it holds, or what it leaves out."""
    columns = np.nonzero(mask > 127 if (mask > 127).mean() < 0.5 else mask <= 127)[1]
    return float(columns.mean() / mask.shape[1])


def check_only_the_mask_changed(name: str, before: Image.Image, after: Image.Image, mask: np.ndarray, scene) -> None:
    """Outside the mask every pixel is as it was, inside it is painted anew, and the mask is not empty or everything."""
    change = np.abs(np.asarray(after, dtype=np.int16) - np.asarray(before, dtype=np.int16)).max(axis=-1)
    outside, inside = change[mask == 0].max(), change[mask == 255].mean()
    share = "" if scene is None else "; ".join(f"{(mask[m] > 127).mean():.0%} of the {word}" for word, m in scene.masks.items())
    print(f"{name}: outside the mask the largest change is {outside}/255, inside the mean change is {inside:.1f}/255; {share}")
    assert outside == 0 and inside > 5 and 0.01 < (mask > 127).mean() < 0.97


def check_the_regions_changed(name: str, without: Image.Image, with_regions: Image.Image, mask: np.ndarray) -> None:
    """Where the words were seen much has changed, elsewhere little: the model sees the whole picture."""
    change = np.abs(np.asarray(with_regions, dtype=np.int16) - np.asarray(without, dtype=np.int16)).max(axis=-1)
    inside, outside = change[mask > 127].mean(), change[mask <= 127].mean()
    print(f"{name}: regions are {(mask > 127).mean():.0%} of the picture; mean change inside {inside:.1f}/255, outside {outside:.1f}/255")
    assert 0.01 < (mask > 127).mean() < 0.7 and inside > 20 and inside > 2 * outside
