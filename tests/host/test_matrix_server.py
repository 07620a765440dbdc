"""Matrix: the real server. Its options, its interrupts, its load; pictures and recordings are read back from its files."""

import socket
import time

import pytest
import torch
from conftest import HOST
from live_server import Server
from safetensors.torch import load_file

OPTIONS = ["", "--use-split-cross-attention", "--use-quad-cross-attention", "--use-pytorch-cross-attention", "--disable-smart-memory",
           "--cache-none", "--cache-lru 3", "--force-fp16", "--deterministic", "--preview-method latent2rgb", "--enable-dynamic-vram"]


def graph(seed=0, steps=4, size=128, concepts="cat, tree", ours=True, name="x") -> dict:
    """Sampling with the tiny Flux; saves the latent and the saliency."""
    prompt = {
        "demo": {"class_type": "ConceptSaliencyDemoModel", "inputs": {}},
        "positive": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["demo", 1], "text": "a cat and a tree on grass"}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["demo", 1], "text": ""}},
        "empty": {"class_type": "EmptySD3LatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "sampler": {"class_type": "KSampler", "inputs": {
            "model": ["ours" if ours else "demo", 0], "positive": ["positive", 0], "negative": ["negative", 0],
            "latent_image": ["empty", 0],
            "seed": seed, "steps": steps, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}},
        "latent": {"class_type": "SaveLatent", "inputs": {"samples": ["sampler", 0], "filename_prefix": name}},
    }
    if ours:
        prompt["ours"] = {"class_type": "ConceptAttentionApply", "inputs": {
            "model": ["demo", 0], "clip": ["demo", 1], "concepts": concepts, "contrast": "grass, sand", "start_percent": 0.0,
            "end_percent": 1.0, "token": "mean", "cross_attention": False}}
        prompt["saliency"] = {"class_type": "ConceptSaliency", "inputs": {
            "recordings": ["ours", 1], "samples": ["sampler", 0], "layers": "auto", "start_percent": 0.0, "end_percent": 1.0,
            "space": "output", "temperature": 0.0}}
        prompt["save"] = {"class_type": "ConceptSaliencySave", "inputs": {"saliency": ["saliency", 0], "filename_prefix": name}}
    return prompt


def run(server, **settings) -> None:
    entry = server.run(graph(**settings))
    assert entry["status"]["status_str"] == "success", server.messages(entry, "execution_error") or entry["status"]


def latent(server, name) -> torch.Tensor:
    return load_file(max(server.folder.glob(f"output/{name}_*.latent")))["latent_tensor"]


def maps(server, name) -> torch.Tensor:
    return load_file(max(server.folder.glob(f"output/{name}_*.safetensors")))["maps"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Latent and maps of a server without options."""
    with Server(HOST, tmp_path_factory.mktemp("usual")) as server:
        run(server, name="usual")
        return latent(server, "usual"), maps(server, "usual")


@pytest.mark.long
@pytest.mark.parametrize("options", OPTIONS)
def test_options(usual, tmp_path, options):
    from comfy.cli_args import parser

    if options and options.split()[0] not in parser.format_help():
        pytest.skip(f"this ComfyUI has no {options}")
    if "dynamic-vram" in options and not torch.cuda.is_available():
        pytest.skip("dynamic VRAM starts on a CUDA device only, and this machine has none")
    with Server(HOST, tmp_path / "comfyui", *options.split()) as server:
        run(server, name="with")
        run(server, name="without", ours=False)
        run(server, name="again", seed=1)
        run(server, name="with", seed=0)
        assert torch.equal(latent(server, "with"), latent(server, "without")), "the picture has changed"
        assert (maps(server, "with") - usual[1]).abs().max() < 0.02, "the maps are those of a server without options"
        assert not torch.equal(maps(server, "again"), maps(server, "with"))


def test_free_between_runs_and_while_one_is_queued(server):
    run(server, name="first")
    server.post("/free", {"unload_models": True, "free_memory": True})
    run(server, name="second")
    number = server.queue(graph(name="third", steps=40, seed=5))
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert server.wait(number)["status"]["status_str"] == "success"
    run(server, name="fourth", ours=False, steps=40, seed=5)
    assert torch.equal(latent(server, "first"), latent(server, "second")) and torch.equal(maps(server, "first"), maps(server, "second"))
    assert torch.equal(latent(server, "third"), latent(server, "fourth"))


def test_an_interrupt_in_mid_step_and_the_next_run(server):
    number = server.queue(graph(name="stopped", steps=2000, seed=7))
    time.sleep(1.5)
    server.post("/interrupt", {})
    assert server.messages(server.wait(number), "execution_interrupted")
    run(server, name="stopped-after", seed=7)
    run(server, name="stopped-plain", seed=7, ours=False)
    assert torch.equal(latent(server, "stopped-after"), latent(server, "stopped-plain"))


def test_prompts_queued_back_to_back_keep_their_own_maps(server):
    numbers = [server.queue(graph(name=f"queued{i}", seed=i, concepts=c)) for i, c in enumerate(("cat, tree", "tree, cat", "cat, tree"))]
    assert all(server.wait(n)["status"]["status_str"] == "success" for n in numbers)
    for i, concepts in enumerate(("cat, tree", "tree, cat", "cat, tree")):
        run(server, name=f"alone{i}", seed=i, concepts=concepts)
        assert torch.equal(latent(server, f"queued{i}"), latent(server, f"alone{i}"))
        assert torch.equal(maps(server, f"queued{i}"), maps(server, f"alone{i}"))


def test_a_client_that_goes_away(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /ws?clientId=gone HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert b"101" in client.recv(1024)
        number = server.post("/prompt", {"prompt": graph(name="gone", steps=60, seed=11), "client_id": "gone"})["prompt_id"]
        time.sleep(0.5)
    assert server.wait(number)["status"]["status_str"] == "success"
    run(server, name="stayed", steps=60, seed=11)
    assert torch.equal(maps(server, "gone"), maps(server, "stayed"))


@pytest.mark.long
def test_memory_after_200_runs(tmp_path, record_property):
    """Changing seeds, sizes and concepts; in one server."""
    with Server(HOST, tmp_path / "comfyui", "--preview-method", "none") as server:
        figures = {}
        for number in range(1, 201):
            run(server, name="load", seed=number, steps=2, size=(96, 128, 160)[number % 3],
                concepts=("cat, tree", "house", "dragon, tree, robot")[number // 3 % 3])
            if number in (20, 100, 200):
                figures[number] = memory(server.process.pid)
        growth = figures[200] / figures[20] - 1
        told = ", ".join(f"{value / 1e6:.0f} MB after run {number}" for number, value in figures.items())
        record_property("figures", f"process memory {told}: {growth:+.1%}")
        print(figures)
        assert growth < 0.02


def memory(process: int) -> int:
    """Bytes of a process's own memory."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Rss"))
