"""A real ComfyUI server on a loopback port, with the pack linked into custom_nodes, and what a client needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
FOLDER = "concept-saliency"  # of the pack in custom_nodes; from one with spaces in its name the host serves no templates and no help


class Server:
    """`with Server(host, folder) as server`: models, outputs and the link to the pack are under `folder`.

    pack: the folder that holds the pack, by default this repository; name: what it is called in custom_nodes.
    """

    def __init__(self, host: Path, folder: Path, *options: str, pack: Path = REPOSITORY,
                 name: str = "a folder of any name"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.log = folder, folder / "server.log"
        (folder / "custom_nodes").mkdir(parents=True)
        (folder / "custom_nodes" / name).symlink_to(pack)
        for kind in ("input", "output", "temp", "user", "models"):
            (folder / kind).mkdir(exist_ok=True)
        command = [sys.executable, str(HERE / "torchvision_shim.py"), "main.py", "--cpu", "--listen", "127.0.0.1", "--port",
                   str(self.port), "--base-directory", str(folder), "--disable-api-nodes", "--disable-auto-launch", *options]
        self.process = subprocess.Popen(command, cwd=host, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
                                        env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return self
            except urllib.error.URLError:
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}")

    def __exit__(self, *exception) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            body = reply.read()
        return json.loads(body) if reply.headers.get_content_type() == "application/json" else body

    def post(self, path: str, content):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(content).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            body = reply.read()
        return json.loads(body) if body.strip().startswith(b"{") else body

    def queue(self, prompt: dict) -> str:
        """Post an API-format prompt; returns its id."""
        try:
            return self.post("/prompt", {"prompt": prompt})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"refused: {error.read().decode()}") from error

    def run(self, prompt: dict, timeout: float = 300) -> dict:
        """Post a prompt and wait; returns its history entry (status, outputs)."""
        return self.wait(self.queue(prompt), timeout)

    def wait(self, number: str, timeout: float = 300) -> dict:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if entry := self.get(f"/history/{number}").get(number):
                return entry
            time.sleep(0.1)
        raise AssertionError(f"prompt {number} did not end within {timeout} s:\n{self.log.read_text()[-3000:]}")

    def messages(self, entry: dict, kind: str) -> list[dict]:
        """The data of all server messages of one kind in a history entry."""
        return [data for name, data in entry["status"]["messages"] if name == kind]

    def image(self, reference: dict) -> bytes:
        return self.get("/view?" + urllib.parse.urlencode(reference))


def to_api(workflow: dict, object_info: dict) -> dict:
    """UI-format workflow -> the API format that the frontend would post."""
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        spec = object_info[node["type"]]["input"]
        inputs, values = {}, iter(node["widgets_values"])
        for name, definition in {**spec.get("required", {}), **spec.get("optional", {})}.items():
            kind, settings = definition[0], definition[1] if len(definition) > 1 else {}
            slot = next((s for s in node["inputs"] if s["name"] == name), None)
            is_widget = isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
            is_widget = is_widget and not settings.get("forceInput")
            if is_widget:
                inputs[name] = next(values)
                if settings.get("control_after_generate") or name in ("seed", "noise_seed"):
                    next(values)
            if slot and slot["link"] is not None:
                _, source, output, *_ = links[slot["link"]]
                inputs[name] = [str(source), output]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
