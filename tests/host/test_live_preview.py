"""The heatmaps on Concept Attention while sampling: what is sent, for which node, and that nothing else changes."""

import asyncio
import gc
import io
import json
import struct
import weakref
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import comfy.model_management
import pytest
import torch
from comfy_execution.progress import ProgressHandler, get_progress_state
from comfy_execution.utils import CurrentNodeContext
from concept_saliency.core.saliency import saliency
from concept_saliency.nodes import live_preview
from concept_saliency.nodes.concept_attention import ConceptAttentionApply
from conftest import REPOSITORY
from live_server import to_api
from oracle import of, traces
from PIL import Image


OLD, WITH_METADATA = 1, 4  # kinds of previews, see protocol.py of ComfyUI


class Watcher(ProgressHandler):
    """What ComfyUI's progress handlers are told, in place of the one that sends it to the browser."""

    def __init__(self):
        super().__init__("watcher")
        self.told = []

    def update_handler(self, node_id, value, max_value, state, prompt_id, image=None):
        self.told.append((node_id, value, max_value, image))


@pytest.fixture
def watcher():
    watcher = Watcher()
    get_progress_state().register_handler(watcher)
    yield watcher
    get_progress_state().unregister_handler("watcher")


def patched(flux, clip, concepts="cat, dog", live=True, node="7"):
    with CurrentNodeContext("prompt", node):
        return ConceptAttentionApply.execute(flux.patcher, clip, concepts, "sky", 0.0, 1.0, "mean", False, live_preview=live).result


@pytest.mark.parametrize("settings", [{}, dict(sampler="heun"), dict(batch=2, cfg=4.0), dict(size=(13, 8), sampler="dpmpp_2m")],
                         ids=["plain", "two calls a step", "batch and cfg", "13 x 8"])
def test_once_a_step_on_the_nodes_own_number_and_the_picture_stays(flux, clip, watcher, settings):
    model, runs = patched(flux, clip)
    called = []
    sampled = flux.sample(model, callback=lambda step, *others: called.append(step), **settings)
    assert torch.equal(sampled, flux.sample(flux.patcher, **settings))
    assert called == [0, 1, 2]
    assert [(node, done, total) for node, done, total, _ in watcher.told] == [("7", step, 3) for step in (1, 2, 3)]
    height, width = settings.get("size", (12, 16))
    for _, _, _, (kind, image, _) in watcher.told:
        assert kind == "JPEG" and image.mode == "RGB"
        assert abs(image.width - 2 * 256 * width / max(height, width)) <= 8 and image.width / 2 < image.height * width / height
    last = saliency(runs.find(sampled)[0].recordings["output"])
    first_picture = [tensor[:1] for tensor in (last.maps, last.presence)]
    expected = live_preview.picture(type(last)(last.concepts, first_picture[0], last.image_size, last.extent, first_picture[1],
                                               last.contrast, last.contrast_maps[:1]))
    shown = watcher.told[-1][3][1]
    if settings.get("sampler") != "heun":  # its last step looks once more after the preview
        apart = [abs(a - b) for one, other in zip(shown.getdata(), expected.getdata()) for a, b in zip(one, other)]
        assert shown.size == expected.size and sum(apart) / len(apart) < 0.01


def test_off_is_nothing_at_all(flux, clip, watcher, monkeypatch):
    model, _ = patched(flux, clip, live=False)
    monkeypatch.setattr(live_preview, "LiveSaliency", None)  # whoever calls it fails
    handed, callback = [], lambda *arguments: None  # noqa: E731
    ours = of(model)
    executor = lambda *arguments: handed.append(arguments) or torch.zeros(1, 16, 2, 2)  # noqa: E731
    executor.class_obj = type("Guider", (), {"model_options": model.model_options, "model_patcher": model})
    ours.outer_sample(executor, torch.zeros(1, 16, 2, 2), None, None, torch.tensor([1.0, 0.0]), None, callback, True, 3)
    assert handed[0][4:] == (None, callback, True, 3) and handed[0][5] is callback
    flux.sample(model)
    assert not watcher.told and ours.preview is None


def test_without_a_running_workflow_there_is_nowhere_to_show_it(flux, clip, watcher):
    model, runs = ConceptAttentionApply.execute(flux.patcher, clip, "cat", "", 0.0, 1.0, "mean", False, live_preview=True).result
    flux.sample(model)
    assert not watcher.told and runs.find(None)[0].recordings


def test_two_nodes_show_their_own_words(flux, clip, watcher):
    first, _ = patched(flux, clip, "cat", node="1")
    with CurrentNodeContext("prompt", "2"):
        both, _ = ConceptAttentionApply.execute(first, clip, "dog, sun, sea", "", 0.0, 1.0, "mean", False, live_preview=True).result
    flux.sample(both, callback=lambda *others: None)
    assert sorted(node for node, *_ in watcher.told) == ["1"] * 3 + ["2"] * 3
    widths = {node: image.size for node, _, _, (_, image, _) in watcher.told}
    assert widths["1"] != widths["2"]


@pytest.mark.parametrize("ending", ["interrupt", "ours"])
def test_nothing_is_left_after_an_interrupt_or_an_error(flux, clip, watcher, monkeypatch, ending):
    model, runs = patched(flux, clip)

    def stop(*others):
        if ending == "interrupt":
            comfy.model_management.interrupt_current_processing(True)
            comfy.model_management.throw_exception_if_processing_interrupted()

    def fail(*others):
        raise RuntimeError("planted")

    known = dict(get_progress_state().nodes)
    with monkeypatch.context() as patches:
        if ending == "ours":
            patches.setattr(live_preview, "picture", fail)
        with pytest.raises(RuntimeError if ending == "ours" else comfy.model_management.InterruptProcessingException):
            flux.sample(model, callback=stop)
    assert not watcher.told and get_progress_state().nodes == known and not traces(flux.patcher)
    ours = of(model)
    assert ours.run is None and not runs._runs
    gone = weakref.ref(ours)
    del model, runs, ours
    gc.collect()
    assert gone() is None and not [o for o in gc.get_objects() if isinstance(o, live_preview.LiveSaliency)]
    assert torch.equal(flux.sample(patched(flux, clip)[0]), flux.sample(flux.patcher)) and len(watcher.told) == 3


def quickstart(server, live: bool) -> dict:
    prompt = to_api(json.loads((REPOSITORY / "workflows" / "quickstart_demo.json").read_text()), server.get("/object_info"))
    next(node for node in prompt.values() if node["class_type"] == "ConceptAttentionApply")["inputs"]["live_preview"] = live
    return prompt


async def messages(server, prompt: dict, knows_whose: bool) -> list:
    """Queue it as a frontend would; what the socket brings until it is done: (kind, metadata, picture) of binary messages, else dict."""
    came, about = [], f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{about}/ws?clientId=tester", max_msg_size=0) as socket:
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": knows_whose}})
        async with session.post(f"{about}/prompt", json={"prompt": prompt, "client_id": "tester"}) as reply:
            assert reply.status == 200, await reply.text()
        while True:
            message = await socket.receive(timeout=120)
            if message.type == aiohttp.WSMsgType.BINARY:
                kind, length = struct.unpack(">II", message.data[:8])
                if kind == OLD:
                    came.append((kind, None, Image.open(io.BytesIO(message.data[8:]))))
                elif kind == WITH_METADATA:
                    came.append((kind, json.loads(message.data[8:8 + length]), Image.open(io.BytesIO(message.data[8 + length:]))))
            else:
                came.append(json.loads(message.data))
                if came[-1]["type"] == "execution_success":
                    return came
                assert came[-1]["type"] != "execution_error", came[-1]


def heard(server, prompt: dict, knows_whose: bool) -> list:
    """The same from a thread of its own: in this one Chromium's tests may have left a loop running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, messages(server, prompt, knows_whose)).result()


@pytest.mark.parametrize("knows_whose", [True, False])
def test_through_the_real_server(server, knows_whose):
    prompt = quickstart(server, True)
    numbers = {node["class_type"]: number for number, node in prompt.items()}  # the kinds that count are there once
    steps = prompt[numbers["KSampler"]]["inputs"]["steps"]
    prompt[numbers["KSampler"]]["inputs"]["seed"] = 100 + knows_whose  # what an earlier run has made is not made again
    came = heard(server, prompt, knows_whose)
    pictures = [one for one in came if isinstance(one, tuple)]
    by_node = {}
    for kind, whose, image in pictures:
        image.load()
        by_node.setdefault(whose and whose["node_id"], []).append((kind, image))
    print({node: (len(those), those[0][0], those[0][1].size) for node, those in by_node.items()})
    if not knows_whose:  # such a frontend shows every preview on the node that runs: it gets the sampler's alone
        assert set(by_node) == {None} and len(by_node[None]) == steps
        return
    sampler, ours = by_node[numbers["KSampler"]], by_node[numbers["ConceptAttentionApply"]]
    assert len(sampler) == len(ours) == steps and set(by_node) == {numbers["KSampler"], numbers["ConceptAttentionApply"]}
    assert {image.size for _, image in ours} != {image.size for _, image in sampler}
    assert all(image.width <= 512 and image.height <= 512 for _, image in ours) and len({image.tobytes() for _, image in ours}) == steps
    running = [{number for number, node in one["data"]["nodes"].items() if node["state"] == "running"} for one in came
               if isinstance(one, dict) and one["type"] == "progress_state"]
    assert not [those for those in running if {numbers["KSampler"], numbers["ConceptAttentionApply"]} <= those]

    off = quickstart(server, False)
    off[numbers["KSampler"]]["inputs"]["seed"] = prompt[numbers["KSampler"]]["inputs"]["seed"]
    without = [one for one in heard(server, off, knows_whose) if isinstance(one, tuple)]
    assert {whose["node_id"] for _, whose, _ in without} == {numbers["KSampler"]}
    for (_, image), (_, _, other) in zip(sampler, without, strict=True):
        assert image.tobytes() == other.tobytes()  # the sampler's own preview, and so the picture, are the same
