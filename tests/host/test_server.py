"""The real server: the pack loads without a warning, workflows run, widgets do not sample again, errors name the node."""

import copy
import io
import json
import time

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from live_server import to_api


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")


@pytest.fixture
def quickstart(info):
    return to_api(json.loads((REPOSITORY / "workflows" / "quickstart_demo.json").read_text()), info)


def node_of(prompt: dict, kind: str) -> str:
    return next(number for number, node in prompt.items() if node["class_type"] == kind)


def succeeded(server, entry) -> dict:
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]
    return entry["outputs"]


def test_the_pack_loads_without_a_warning(server, info):
    expected = {"ConceptAttentionApply", "ConceptSaliency", "ConceptSaliencyToMask", "ConceptSaliencyDemoModel"}
    assert expected <= info.keys()
    start, ready, _ = server.log.read_text().partition("To see the GUI go to")  # what runs say later is theirs: a mask may be empty
    ours = [line for line in start.splitlines() if "a folder of any name" in line or "concept" in line.lower()]
    assert ready and ours
    assert not [line for line in ours if "IMPORT FAILED" in line or "WARNING" in line.upper() or "Cannot import" in line], ours
    for name in expected:
        for group in info[name]["input"].values():
            for field, definition in group.items() if group is not info[name]["input"].get("hidden") else ():
                assert definition[1].get("tooltip"), f"{name}.{field} has no tooltip"


def test_quickstart_goes_from_words_to_picture_heatmaps_and_mask(server, quickstart):
    quickstart |= {"100": {"class_type": "MaskToImage", "inputs": {"mask": [node_of(quickstart, "ConceptSaliencyToMask"), 0]}},
                   "101": {"class_type": "PreviewImage", "inputs": {"images": ["100", 0]}}}
    start = time.monotonic()
    outputs = succeeded(server, server.run(quickstart))
    print(f"quickstart took {time.monotonic() - start:.1f} s")
    heatmaps = outputs[node_of(quickstart, "ConceptSaliency")]["images"]
    assert len(heatmaps) == 3
    sizes = {Image.open(io.BytesIO(server.image(h))).size for h in heatmaps}
    assert len(sizes) == 1 and sizes.pop()[0] == 256
    mask = np.asarray(Image.open(io.BytesIO(server.image(outputs["101"]["images"][0]))).convert("L"))
    assert mask.shape == (256, 256) and set(np.unique(mask)) == {0, 255} and 0.01 < (mask > 0).mean() < 0.6


def test_the_picture_is_the_same_without_the_pack(server, quickstart):
    with_pack = succeeded(server, server.run(quickstart))
    plain = copy.deepcopy(quickstart)
    plain[node_of(plain, "KSampler")]["inputs"]["model"] = [node_of(plain, "ConceptSaliencyDemoModel"), 0]
    for kind in ("ConceptSaliencyToMask", "ConceptSaliency", "ConceptAttentionApply"):
        del plain[node_of(plain, kind)]
    without = succeeded(server, server.run(plain))
    preview = node_of(plain, "PreviewImage")
    pictures = [np.asarray(Image.open(io.BytesIO(server.image(o[preview]["images"][0])))) for o in (with_pack, without)]
    assert np.array_equal(*pictures) and pictures[0].std() > 5


def test_changing_a_widget_does_not_sample_again(server, quickstart):
    server.run(quickstart)
    for kind, field, value in (("ConceptSaliency", "layers", "all"), ("ConceptSaliency", "temperature", 3.0),
                               ("ConceptSaliencyToMask", "method", "mean"), ("ConceptSaliencyToMask", "concept", "balloon")):
        quickstart[node_of(quickstart, kind)]["inputs"][field] = value
        entry = server.run(quickstart)
        succeeded(server, entry)
        cached = server.messages(entry, "execution_cached")[0]["nodes"]
        assert node_of(quickstart, "KSampler") in cached and node_of(quickstart, kind) not in cached, (kind, field)


def test_another_seed_samples_again_and_shows_its_own_run(server, quickstart):
    first = succeeded(server, server.run(quickstart))
    quickstart[node_of(quickstart, "KSampler")]["inputs"]["seed"] += 1
    second = succeeded(server, server.run(quickstart))
    node = node_of(quickstart, "ConceptSaliency")
    tiles = [np.asarray(Image.open(io.BytesIO(server.image(o[node]["images"][0])))) for o in (first, second)]
    assert not np.array_equal(*tiles)
    assert "newest recording" not in server.log.read_text()


def test_custom_sampling_nodes_work_too(server, quickstart, info):
    sampler = node_of(quickstart, "KSampler")
    model, positive, latent = (quickstart[sampler]["inputs"][k] for k in ("model", "positive", "latent_image"))
    quickstart |= {
        "100": {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}},
        "101": {"class_type": "BasicGuider", "inputs": {"model": model, "conditioning": positive}},
        "102": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "heun"}},
        "103": {"class_type": "BasicScheduler", "inputs": {"model": model, "scheduler": "simple", "steps": 6, "denoise": 1.0}},
        sampler: {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["100", 0], "guider": ["101", 0], "sampler": ["102", 0],
                                                                   "sigmas": ["103", 0], "latent_image": latent}},
    }
    outputs = succeeded(server, server.run(quickstart))
    assert len(outputs[node_of(quickstart, "ConceptSaliency")]["images"]) == 3


@pytest.mark.parametrize("kind, field, value, message", [
    ("ConceptAttentionApply", "concepts", "", "No concept was typed"),
    ("ConceptAttentionApply", "concepts", "cat, cat", "is there twice"),
    ("ConceptSaliency", "layers", "40", "layers are 0 to 3"),
    ("ConceptSaliency", "samples", None, "Nothing has been sampled"),
    ("ConceptSaliencyToMask", "concept", "unicorn", "Known: 1 balloon, 2 tree, 3 sand"),
    ("ConceptSaliencyToMask", "concept", "4", "Known: 1 balloon, 2 tree, 3 sand"),
])
def test_errors_stand_on_their_node(server, quickstart, kind, field, value, message):
    number = node_of(quickstart, kind)
    if value is None:  # nothing waits for a sampler then
        quickstart[node_of(quickstart, "ConceptAttentionApply")]["inputs"]["concepts"] = "moon"
        for name in ("samples", "image"):
            del quickstart[number]["inputs"][name]
        for other in ("KSampler", "VAEDecode", "PreviewImage"):
            del quickstart[node_of(quickstart, other)]
    else:
        quickstart[number]["inputs"][field] = value
    entry = server.run(quickstart)
    errors = server.messages(entry, "execution_error")
    assert errors and errors[0]["node_id"] == number and message in errors[0]["exception_message"], errors


def test_a_slip_in_a_concepts_name_is_found_before_anything_is_sampled(server, quickstart):
    quickstart[node_of(quickstart, "ConceptSaliencyToMask")]["inputs"]["concept"] = "draogn"
    quickstart[node_of(quickstart, "KSampler")]["inputs"]["seed"] += 1000  # as a seed that changes by itself would
    entry = server.run(quickstart)
    error = server.messages(entry, "execution_error")[0]
    assert error["node_id"] == node_of(quickstart, "ConceptSaliencyToMask") and "no concept 'draogn'" in error["exception_message"]
    assert node_of(quickstart, "KSampler") not in error["executed"]


def test_a_concept_that_another_node_types_is_looked_up_when_it_is_known(server, quickstart):
    """Words that do not stand in the workflow cannot be compared before; the error comes with the mask."""
    quickstart["100"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "balloon, tree"}}
    quickstart[node_of(quickstart, "ConceptAttentionApply")]["inputs"]["concepts"] = ["100", 0]
    mask = node_of(quickstart, "ConceptSaliencyToMask")
    succeeded(server, server.run(quickstart))
    quickstart[mask]["inputs"]["concept"] = "sand"
    error = server.messages(server.run(quickstart), "execution_error")[0]
    assert error["node_id"] == mask and "Known: 1 balloon, 2 tree" in error["exception_message"]


def test_an_interrupt_from_the_api_leaves_nothing_behind(server, quickstart):
    expected = succeeded(server, server.run(quickstart))
    slow = copy.deepcopy(quickstart)
    slow[node_of(slow, "KSampler")]["inputs"].update(steps=2000, seed=99)
    number = server.queue(slow)
    time.sleep(3)
    server.post("/interrupt", {})
    entry = server.wait(number)
    assert server.messages(entry, "execution_interrupted")
    quickstart[node_of(quickstart, "KSampler")]["inputs"]["seed"] += 5
    succeeded(server, server.run(quickstart))
    quickstart[node_of(quickstart, "KSampler")]["inputs"]["seed"] -= 5
    again = succeeded(server, server.run(quickstart))
    node = node_of(quickstart, "PreviewImage")
    pictures = [np.asarray(Image.open(io.BytesIO(server.image(o[node]["images"][0])))) for o in (expected, again)]
    assert np.array_equal(*pictures)
