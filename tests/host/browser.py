"""Fixtures: the real server's frontend in Chromium, classic and Nodes 2.0. SCREENSHOTS=<folder> keeps a picture of every step.

Tests with it are skipped by name where playwright or Chromium is missing.
"""

import os
import shutil
from pathlib import Path

import pytest
from comfyui_version import __version__
from conftest import HOST

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run"]


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes 2.0"])
def page(server, chromium, request):
    if request.param and __version__ == "0.3.64":
        pytest.skip("this frontend has no Nodes 2.0")
    server.post("/settings/Comfy.TutorialCompleted", True)
    server.post("/settings/Comfy.VueNodes.Enabled", request.param)
    page = opened(chromium, server, "vue" if request.param else "classic")
    yield page
    page.context.close()


def opened(chromium, server, name: str):
    """The frontend in a window of its own, that remembers nothing. page.errors: what was thrown in it."""
    page = chromium.new_context(viewport={"width": 1900, "height": 1050}).new_page()
    page.set_default_timeout(60_000)
    page.name, page.errors = name, []
    page.on("pageerror", lambda error: page.errors.append(error.stack))
    page.goto(f"http://127.0.0.1:{server.port}")
    page.wait_for_function("window.app?.graph?.nodes?.length")  # its own first workflow, which would replace ours
    return page


def keep(page, name: str) -> None:
    """A picture of the window, where SCREENSHOTS says."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)  # for animations and pictures
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{HOST.name}_{page.name}_{name}.png"))
