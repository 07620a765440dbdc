"""The real frontend in Chromium: each of our cards in the template browser opens, with all its nodes. See browser.py."""

import json

import pytest
from browser import keep
from conftest import REPOSITORY
from live_server import FOLDER

WORKFLOWS = sorted(path.stem for path in (REPOSITORY / "workflows").glob("*.json"))
CARD = "[data-testid^='template-workflow-']"


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
