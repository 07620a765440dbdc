"""What the host lists of this pack, and serves: templates with their pictures, and blueprints that it can build."""

import json
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from conftest import REPOSITORY
from concept_saliency.demo.workflow_nodes import KINDS
from live_server import FOLDER, to_api


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")


def raw(server, path: str) -> bytes:
    """What the server answers, as it is."""
    with urlopen(f"http://127.0.0.1:{server.port}{quote(path)}", timeout=30) as reply:
        return reply.read()


def test_every_template_and_its_picture_is_served_as_it_is(server):
    listed = server.get("/workflow_templates")[FOLDER]
    files = sorted((REPOSITORY / "workflows").iterdir())
    assert sorted(listed) == sorted(path.stem for path in files if path.suffix == ".json") and len(listed) == 18
    for name in listed:
        for suffix in (".json", ".jpg"):
            served = raw(server, f"/api/workflow_templates/{FOLDER}/{name}{suffix}")
            assert served == (REPOSITORY / "workflows" / f"{name}{suffix}").read_bytes()
    assert {path.stem for path in files if path.suffix == ".jpg"} == set(listed) and {p.suffix for p in files} == {".json", ".jpg"}
    print(f"{len(listed)} templates, {2 * len(listed)} files answered 200 and equal")


@pytest.mark.parametrize("name", KINDS)
def test_nodes_are_as_the_workflows_take_them(info, name):
    """Inputs, widgets in their order, defaults that a list holds, and outputs."""
    if name == "MarkdownNote":
        return  # the frontend's own
    if name not in info:
        pytest.skip(f"this ComfyUI has no {name}")
    kind, spec = KINDS[name], {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
    slots, widgets = {}, []
    for key, (type_, *settings) in spec.items():
        settings = settings[0] if settings else {}
        options = type_ if isinstance(type_, list) else settings.get("options")
        if (isinstance(type_, list) or type_ in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")) and not settings.get("forceInput"):
            widgets.append(key)
            if options and kind.widgets.get(key):
                assert kind.widgets[key] in options
            if settings.get("control_after_generate"):
                widgets.append("control_after_generate")
            if settings.get("image_upload"):
                widgets.append("upload")
        else:
            slots[key] = type_
    assert list(kind.inputs) == [key for key in slots if key in kind.inputs] and kind.inputs.items() <= slots.items()
    assert list(kind.widgets) == widgets
    # in workflows an output is found by its place; names may be shown otherwise
    assert list(kind.outputs.values()) == info[name]["output"][:len(kind.outputs)]


def blueprints(server) -> dict[str, dict]:
    """Name -> file, of this pack's blueprints; skips where the host knows none."""
    try:
        listed = server.get("/global_subgraphs")
    except HTTPError as error:
        if error.code != 404:
            raise
        pytest.skip("this ComfyUI has no subgraph blueprints")
    return {entry["name"]: json.loads(server.get(f"/global_subgraphs/{number}")["data"]) for number, entry in listed.items()
            if entry["info"]["node_pack"] == f"custom_nodes.{FOLDER}"}


def unpacked(subgraph: dict, given: dict[str, list]) -> dict:
    """The subgraph's inside as a workflow on its own; given: the subgraph's inputs -> [node, output] outside of it."""
    links = [[k["id"], k["origin_id"], k["origin_slot"], k["target_id"], k["target_slot"], k["type"]] for k in subgraph["links"]]
    names = [entry["name"] for entry in subgraph["inputs"]]
    outside = [[n, *given[names[slot]], target, place, kind] for n, origin, slot, target, place, kind in links
               if origin == -10 and names[slot] in given]
    kept = [link for link in links if link[1] != -10 and link[3] != -20] + outside
    numbers = {link[0] for link in kept}
    nodes = [{**n, "inputs": [{**i, "link": i["link"] if i["link"] in numbers else None} for i in n["inputs"]]} for n in subgraph["nodes"]]
    return {"nodes": nodes, "links": kept}


def test_blueprints_are_listed_and_whole(server, info):
    found = blueprints(server)
    assert found.keys() == {"Mask by words", "Repaint by words", "Erase by words"}
    for name, content in found.items():
        assert content == json.loads((REPOSITORY / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))
        [outer], [subgraph] = content["nodes"], content["definitions"]["subgraphs"]
        assert outer["type"] == subgraph["id"] and subgraph["name"] == name
        nodes = {n["id"]: n for n in subgraph["nodes"]}
        assert {n["type"] for n in subgraph["nodes"]} <= info.keys()
        assert [i["name"] for i in outer["inputs"]] == [i["name"] for i in subgraph["inputs"]]
        assert [o["name"] for o in outer["outputs"]] == [o["name"] for o in subgraph["outputs"]]
        numbers = [link["id"] for link in subgraph["links"]]
        assert len(set(numbers)) == len(numbers) and max(numbers) == subgraph["state"]["lastLinkId"]
        for link in subgraph["links"]:
            source = subgraph["inputs"] if link["origin_id"] == -10 else nodes[link["origin_id"]]["outputs"]
            target = subgraph["outputs"] if link["target_id"] == -20 else nodes[link["target_id"]]["inputs"]
            assert source[link["origin_slot"]]["type"] == link["type"] == target[link["target_slot"]]["type"]
            for end, slot, key in ((source, "origin_slot", "linkIds" if link["origin_id"] == -10 else "links"),
                                   (target, "target_slot", "linkIds" if link["target_id"] == -20 else "link")):
                assert link["id"] == end[link[slot]][key] or link["id"] in end[link[slot]][key]
        for number, widget in outer["properties"]["proxyWidgets"]:
            spec = info[nodes[int(number)]["type"]]["input"]
            assert widget in {**spec["required"], **spec.get("optional", {})}


@pytest.mark.parametrize(("name", "words"), [("Mask by words", {}), ("Repaint by words", {"Prompt": "a robot and a tree on grass"}),
                                             ("Erase by words", {})])
def test_blueprints_run_on_the_demo_model(server, info, name, words):
    [subgraph] = blueprints(server)[name]["definitions"]["subgraphs"]
    prompt = to_api(unpacked(subgraph, {"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2], "image": ["picture", 0]}), info)
    for number, title in ((str(n["id"]), n.get("title")) for n in subgraph["nodes"]):
        inputs = prompt[number]["inputs"]
        if "concepts" in inputs:
            inputs.update(concepts="cat, tree", samples=1)
        if title in words:
            inputs["text"] = words[title]
    prompt |= {"demo": {"class_type": "ConceptSaliencyDemoModel", "inputs": {}},
               "picture": {"class_type": "EmptyImage", "inputs": {"width": 256, "height": 256, "batch_size": 1, "color": 0x63b344}}}
    kinds = {"IMAGE": ("PreviewImage", "images"), "MASK": ("MaskPreview", "mask"), "FLOAT": ("PreviewAny", "source")}
    for slot, output in enumerate(subgraph["outputs"]):
        link = next(k for k in subgraph["links"] if k["target_id"] == -20 and k["target_slot"] == slot)
        kind, into = kinds[output["type"]]
        prompt[output["name"]] = {"class_type": kind, "inputs": {into: [str(link["origin_id"]), link["origin_slot"]]}}
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]
    assert {output["name"] for output in subgraph["outputs"]} <= entry["outputs"].keys()
