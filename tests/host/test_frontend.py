"""The real frontend in Chromium: each of our cards in the template browser opens, with all its nodes.

Skipped by name where playwright or Chromium is missing. SCREENSHOTS=<folder> keeps a picture of every step.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import HOST, REPOSITORY
from live_server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

FOLDER = "any-name"  # the host serves no templates from a folder with spaces in its name
WORKFLOWS = sorted(path.stem for path in (REPOSITORY / "workflows").glob("*.json"))
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run"]
CARD = "[data-testid^='template-workflow-']"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(HOST, tmp_path_factory.mktemp("comfyui"), name=FOLDER) as running:
        shutil.copy(HOST / "input" / "example.png", running.folder / "input")  # as in every ComfyUI
        running.post("/settings/Comfy.TutorialCompleted", True)
        yield running


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def page(server, chromium, request):
    server.post("/settings/Comfy.VueNodes.Enabled", request.param)
    context = chromium.new_context(viewport={"width": 1900, "height": 1050})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.name = "vue" if request.param else "classic"
    page.goto(f"http://127.0.0.1:{server.port}")
    page.wait_for_function("window.app && window.app.graph")
    yield page
    context.close()


def keep(page, name: str) -> None:
    """A picture of the window, where SCREENSHOTS says."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)  # for animations and pictures
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{HOST.name}_{page.name}_{name}.png"))


def browse(page) -> None:
    """Open the template browser at our cards."""
    if not page.get_by_placeholder("Search templates...").is_visible():
        page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    ours = page.get_by_role("dialog").get_by_text(FOLDER, exact=True).first  # the name also stands on our nodes
    ours.wait_for()
    page.wait_for_timeout(1500)  # the list is drawn anew as templates arrive
    ours.dispatch_event("click")
    page.locator(CARD).first.wait_for()


@pytest.mark.long
def test_every_card_opens_with_all_its_nodes(page):
    browse(page)
    keep(page, "template_browser")
    assert page.locator(CARD).count() == len(WORKFLOWS)
    for name in WORKFLOWS:
        if not page.locator(CARD).first.is_visible():
            browse(page)
        page.locator(f"[data-testid='template-workflow-{name}']").click()
        page.locator(CARD).first.wait_for(state="hidden")
        expected = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(expected["nodes"]))
        shown = page.evaluate("() => ({links: window.app.graph.links.size, groups: window.app.graph._groups.length, "
                              "known: window.app.graph.nodes.every(n => n.type in LiteGraph.registered_node_types)})")
        assert shown == {"links": len(expected["links"]), "groups": len(expected["groups"]), "known": True}
        keep(page, name)
