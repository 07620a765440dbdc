"""The workflows and blueprints in the repository are what the scripts write, say which files they need, and hide no wire."""

import re
from itertools import pairwise

import pytest

from concept_saliency.demo import make_blueprints, make_workflows
from concept_saliency.demo.workflow_nodes import PACK

WORKFLOWS = make_workflows.workflows()
WRITTEN = {"workflows": WORKFLOWS, "subgraphs": make_blueprints.blueprints()}
LOADERS = {"UNETLoader", "DualCLIPLoader", "VAELoader", "CheckpointLoaderSimple"}


@pytest.mark.parametrize("folder", WRITTEN)
def test_the_files_are_what_the_scripts_write(folder):
    there = {path.name: path.read_text(encoding="utf-8") for path in (make_workflows.ROOT / folder).glob("*.json")}
    assert there == {name: make_workflows.text(content) for name, content in WRITTEN[folder].items()}


def test_every_workflow_has_a_thumbnail():
    pictures = {path.stem: path.read_bytes() for path in (make_workflows.ROOT / "workflows").glob("*.jpg")}
    assert pictures.keys() == {name.removesuffix(".json") for name in WORKFLOWS}
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_loaders_say_what_they_load_and_the_note_says_where_it_belongs(name):
    nodes = WORKFLOWS[name]["nodes"]
    note = next(n for n in nodes if n["type"] == "MarkdownNote")["widgets_values"][0]
    loaders = [n for n in nodes if n["type"] in LOADERS]
    assert bool(loaders) != any(n["type"] == "ConceptSaliencyDemoModel" for n in nodes)
    for node in loaders:
        chosen = [v for v in node["widgets_values"] if v.endswith(".safetensors")]
        assert chosen and chosen == [model["name"] for model in node["properties"]["models"]]
        for model in node["properties"]["models"]:
            assert model["url"].endswith(model["name"]) and f"[{model['name']}]({model['url']})" in note
            assert f"─ {model['directory']}/" in note and f"─ {model['name']}\n" in note
    assert "Run (On Change)" in note


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_node_says_whose_it_is(name):
    for node in WORKFLOWS[name]["nodes"]:
        if node["type"] != "MarkdownNote":
            whose = PACK["cnr_id"] if node["type"].startswith("Concept") else "comfy-core"
            if node["type"].startswith("Conditioning"):
                whose = "comfy-core"
            assert node["properties"]["cnr_id"] == whose and re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"])


def crosses(a: tuple, b: tuple, box: tuple) -> bool:
    """Whether the straight line from a to b passes through the box x0, y0, x1, y1 (Liang and Barsky's clipping)."""
    start, end = 0.0, 1.0
    for axis in (0, 1):
        way = b[axis] - a[axis]
        for edge, sign in ((box[axis], 1), (box[axis + 2], -1)):
            distance = (edge - a[axis]) * sign
            if way == 0:
                if distance > 0:
                    return False
            elif way * sign > 0:
                start = max(start, distance / (way * sign))
            else:
                end = min(end, distance / (way * sign))
    return start < end


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_wire_passes_behind_a_node_and_no_two_nodes_overlap(name):
    workflow = WORKFLOWS[name]
    boxes = {n["id"]: (n["pos"][0], n["pos"][1] - 30, n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1]) for n in workflow["nodes"]}
    for number, one in boxes.items():
        for other, two in boxes.items():
            assert number == other or one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    points = {p["id"]: p for p in workflow["extra"].get("reroutes", [])}
    last = {e["id"]: e["parentId"] for e in workflow["extra"].get("linkExtensions", [])}
    for link, source, slot, target, place, _ in workflow["links"]:
        way, point = [], last.get(link)
        while point:
            assert link in points[point]["linkIds"]
            way.insert(0, tuple(points[point]["pos"]))
            point = points[point].get("parentId")
        out, into = boxes[source], boxes[target]
        way = [(out[2], out[1] + 44 + 20 * slot), *way, (into[0], into[1] + 44 + 20 * place)]
        hidden = [n for n, box in boxes.items() if any(crosses(a, b, box) for a, b in pairwise(way))]
        assert not hidden, f"the wire {way} is hidden by {hidden}"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_node_but_the_note_lies_in_one_group(name):
    workflow = WORKFLOWS[name]
    for node in workflow["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        inside = [g for g in workflow["groups"] if g["bounding"][0] < x and x + width < g["bounding"][0] + g["bounding"][2]
                  and g["bounding"][1] < y - 30 and y + height < g["bounding"][1] + g["bounding"][3]]
        assert len(inside) == (node["type"] != "MarkdownNote")
