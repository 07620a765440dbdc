"""What the registry ships, unpacked into a folder of another name: it loads, its quickstart runs, and its templates are served."""

import io
import json
import urllib.parse
import sys

import numpy as np
import pytest
from conftest import HOST, REPOSITORY
from live_server import Server, to_api
from PIL import Image

sys.path.append(str(REPOSITORY / "tests"))
import shipped  # noqa: E402

FOLDER = "renamed.by-hand_2"  # ComfyUI serves no template of a folder whose name has a space: aiohttp compares it quoted with unquoted


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pack = shipped.unpack(tmp_path_factory.mktemp("downloaded") / "concept-saliency")
    with Server(HOST, tmp_path_factory.mktemp("comfyui"), pack=pack, name=FOLDER) as running:
        running.pack = pack
        yield running


def test_every_node_of_the_pack_is_there(server):
    log = server.log.read_text()
    assert FOLDER in log and "IMPORT FAILED" not in log and "Cannot import" not in log, log[-3000:]
    ours = {name: node for name, node in server.get("/object_info").items() if node["python_module"] == f"custom_nodes.{FOLDER}"}
    sam3 = "SAM3_Detect" in server.get("/object_info")
    assert len(ours) == (13 if sam3 else 12), sorted(ours)


def test_the_quickstart_runs(server):
    workflow = json.loads((server.pack / "workflows" / "quickstart_demo.json").read_text())
    prompt = to_api(workflow, server.get("/object_info"))
    of_kind = {node["class_type"]: number for number, node in prompt.items()}
    prompt["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": [of_kind["ConceptSaliencyToMask"], 0]}}
    prompt["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["mask", 0]}}
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]
    asked = prompt[of_kind["ConceptAttentionApply"]]["inputs"]["concepts"]
    assert len(entry["outputs"][of_kind["ConceptSaliency"]]["images"]) == len(asked.split(","))
    mask = np.asarray(Image.open(io.BytesIO(server.image(entry["outputs"]["shown"]["images"][0]))).convert("L"))
    assert 0.01 < (mask > 127).mean() < 0.6


def test_its_templates_are_served(server):
    names = server.get("/workflow_templates")[FOLDER]
    assert {file.stem for file in (server.pack / "workflows").glob("*.json")} == set(names)
    for name in names:
        address = f"/api/workflow_templates/{FOLDER}/{urllib.parse.quote(name)}"
        assert server.get(f"{address}.json") == json.loads((server.pack / "workflows" / f"{name}.json").read_text())
        assert server.get(f"{address}.jpg") == (server.pack / "workflows" / f"{name}.jpg").read_bytes()
