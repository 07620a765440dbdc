"""Help pages and translations: complete, true to the schemas, and served where the frontend looks for them.

The frontend asks for docs/<node>/<language>.md, then for docs/<node>.md, and reads picture links from docs/ on
(its NodeHelpService); /i18n holds what a pack's locales/ say (app/custom_node_manager.py).
"""

import json
import re

import pytest
from comfyui_version import __version__
from concept_saliency.demo.text import Tokenizer
from conftest import REPOSITORY
from live_server import FOLDER
from PIL import Image

LANGUAGES = ("en", "zh", "de", "ja")
MISSING_HERE = {"ConceptSaliencyToSAM3"} if __version__ == "0.3.64" else set()  # this host has no SAM3
DOCS = REPOSITORY / "web" / "docs"
NODE_DEFS = {language: json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text("utf-8")) for language in LANGUAGES}
NODES = sorted(NODE_DEFS["en"])
EXPLORERS = {"ConceptSaliency", "ConceptSaliencyToMask"}  # have one in the browser, see web/js
# a heading -> what is listed under it
SECTIONS = {"Connect": "sockets", "Widgets": "widgets", "Outputs": "outputs", "连接": "sockets", "参数": "widgets", "输出": "outputs",
            "Anschließen": "sockets", "Einstellungen": "widgets", "Ausgänge": "outputs", "つなぐもの": "sockets", "設定": "widgets",
            "出力": "outputs", "Explorer": "explorer", "浏览器": "explorer", "エクスプローラー": "explorer"}
MESSAGE_SYNTAX = re.compile(r"[|@{}]")  # vue-i18n takes these for its own; the frontend then shows less than what was written
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@pytest.fixture(scope="module")
def ours(server):
    """Our nodes as the server describes them to the frontend."""
    return {name: node for name, node in server.get("/object_info").items() if node["python_module"] == f"custom_nodes.{FOLDER}"}


def page(node: str, language: str):
    return DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"


def inputs(node: dict) -> dict[str, list]:
    return {name: spec for group in ("required", "optional") for name, spec in node["input"].get(group, {}).items()}


def options(spec: list) -> list[str]:
    return spec[0] if isinstance(spec[0], list) else spec[1].get("options", [])


def listed(text: str) -> dict[str, dict[str, str]]:
    """Section -> {what is written in bold at the beginning of an entry: the entry}."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        kind = SECTIONS.get(section.splitlines()[0], "advice")
        assert kind not in found, f"two sections of {kind}"
        entries = re.split(r"^- ", section, flags=re.M)[1:]
        named = kind not in ("advice", "explorer")
        found[kind] = {re.match(r"\*\*(.+?)\*\*", e)[1]: e for e in entries} if named else {entry: entry for entry in entries}
    return found


def texts(definition) -> list[str]:
    return [definition] if isinstance(definition, str) else [text for part in definition.values() for text in texts(part)]


def test_the_english_text_is_the_schemas(ours):
    expected = {}
    for name, node in ours.items():
        tips, names = node.get("output_tooltips") or [None] * len(node["output_name"]), node["output_name"]
        if __version__ == "0.3.64":  # it calls an output without a display name by its type
            names = [mine["name"] if shown == kind else shown
                     for shown, kind, mine in zip(names, node["output"], NODE_DEFS["en"][name].get("outputs", {}).values(), strict=True)]
        fields = {field: {"name": field, "tooltip": spec[1]["tooltip"]} for field, spec in inputs(node).items()}
        results = {str(i): {"name": output} | ({"tooltip": tip} if tip else {})
                   for i, (output, tip) in enumerate(zip(names, tips))}
        for field in fields.values():
            if MESSAGE_SYNTAX.search(field["tooltip"]):
                del field["tooltip"]  # the frontend then takes the schema's
        expected[name] = {"display_name": node["display_name"], "description": node["description"]}
        expected[name] |= ({"inputs": fields} if fields else {}) | ({"outputs": results} if results else {})
    assert ours.keys() == NODE_DEFS["en"].keys() - MISSING_HERE
    assert {name: NODE_DEFS["en"][name] for name in ours} == expected


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_says_all_that_the_schemas_say(ours, language):
    mine = NODE_DEFS[language]
    assert mine.keys() == NODE_DEFS["en"].keys()
    for name, node in ours.items():
        assert mine[name]["display_name"] and mine[name]["description"]
        for field, spec in inputs(node).items():
            said = mine[name]["inputs"][field]
            assert said["name"] and said["tooltip"], f"{name}.{field}"
            explained = [option for option in options(spec) if f"{option}: " in spec[1]["tooltip"]]
            assert not [option for option in explained if option not in said["tooltip"]], f"{name}.{field}"
        assert mine[name].get("inputs", {}).keys() == inputs(node).keys(), name
        assert list(mine[name].get("outputs", {})) == [str(i) for i in range(len(node["output_name"]))], name
        for number, output in NODE_DEFS["en"][name].get("outputs", {}).items():
            assert mine[name]["outputs"][number].keys() == output.keys(), f"{name}, output {number}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_frontend_reads_every_text_to_its_end(language):
    main = json.loads((REPOSITORY / "locales" / language / "main.json").read_text("utf-8"))
    assert not [text for text in texts(NODE_DEFS[language]) + texts(main) if MESSAGE_SYNTAX.search(text) or not text.strip()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_describe_each_widget_and_no_other(ours, language):
    for name, node in ours.items():
        text, names = page(name, language).read_text("utf-8"), NODE_DEFS[language][name]
        sections = listed(text)
        assert text.startswith(f"# {names['display_name']}\n") and len(sections["advice"]) > 1
        assert ("explorer" in sections) == (name in EXPLORERS)
        widgets = {field for field, spec in inputs(node).items() if isinstance(spec[0], list) or spec[0] in WIDGETS}
        for kind, fields in (("widgets", widgets), ("sockets", inputs(node).keys() - widgets)):
            entries = sections.get(kind, {})
            assert entries.keys() == {names["inputs"][field]["name"] for field in fields}, f"{name}, {language}: {kind}"
            for field in fields:
                entry = entries[names["inputs"][field]["name"]]
                assert language == "en" or f" (`{field}`)" in entry, f"{name}, {language}: {field}"
                silent = [option for option in options(inputs(node)[field]) if f"`{option}`" not in entry]
                assert not silent, f"{name}, {language}: {field} does not explain {silent}"
        assert list(sections.get("outputs", {})) == [output["name"] for output in names.get("outputs", {}).values()], f"{name}, {language}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_speak_of_nothing_that_is_not_there(language):
    """Bold is what stands on our nodes: their names, their inputs and their outputs."""
    defined = NODE_DEFS[language].values()
    there = {node["display_name"] for node in defined} | {part["name"] for node in defined for side in ("inputs", "outputs")
                                                          for part in node.get(side, {}).values()}
    for name in NODES:
        unknown = set(re.findall(r"\*\*(.+?)\*\*", page(name, language).read_text("utf-8"))) - there
        assert not unknown, f"{name}, {language}"


def test_every_picture_is_there_small_and_used():
    used = set()
    for path in DOCS.rglob("*.md"):
        pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", path.read_text("utf-8"))
        assert pictures, f"{path.name} has no picture"
        for description, link in pictures:
            picture = DOCS / link  # for the frontend, also on the pages in docs/<node>/
            assert len(description) > 10 and picture.is_file(), f"{path}: {link}"
            with Image.open(picture) as opened:
                assert opened.width <= 900 and picture.stat().st_size < 60_000, link
            used.add(picture)
    assert used == set((DOCS / "pictures").iterdir())
    assert set(DOCS.rglob("*.md")) == {page(name, language) for name in NODES for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_demo_s_page_lists_its_words(ours, language):
    name, words = "ConceptSaliencyDemoModel", ", ".join(Tokenizer().known())
    assert f": {words}." in ours[name]["description"]
    assert words in NODE_DEFS[language][name]["description"] and words in page(name, language).read_text("utf-8")


def test_the_server_has_pages_pictures_and_translations(server, ours):
    for path in filter(lambda p: p.is_file(), DOCS.rglob("*")):
        served = server.get(f"/extensions/{FOLDER}/docs/{path.relative_to(DOCS).as_posix()}")
        assert served == path.read_bytes(), path
    translations = server.get("/i18n")
    for language in LANGUAGES:
        mine = translations[language]
        assert {name: mine["nodeDefs"][name] for name in NODES} == NODE_DEFS[language]
        assert mine["settings"] == json.loads((REPOSITORY / "locales" / language / "settings.json").read_text("utf-8"))
        assert all(mine["nodeCategories"][node["category"]] for node in ours.values())
