"""The explorer in the real frontend: what it shows and makes, against the numbers of the Python side. See browser.py."""

import io
import itertools
import json
import time

import numpy as np
import pytest
import torch
from browser import keep, opened
from comfyui_version import __version__
from concept_saliency.core import explore
from concept_saliency.core.saliency import Saliency
from conftest import REPOSITORY
from PIL import Image

pytestmark = pytest.mark.long
HOSTILE = ['<img src=x onerror="window.pwned = 1">', "a \"quoted\" 'word'", "🐉🔥", "תפוח אדום", "</button><b>x</b>", "&lt;i&gt;", "1 + 1"]


class Explorers:
    """A workflow in the page: nodes by type, their panels, runs, and what the server made of them."""

    def __init__(self, page, server, concepts=("balloon", "tree", "sand"), batch=1, steps=6):
        self.page, self.server = page, server
        page.errors.clear()
        flow = json.loads((REPOSITORY / "workflows" / "quickstart_demo.json").read_text(encoding="utf-8"))
        by_type = {node["type"]: node for node in flow["nodes"]}
        by_type["ConceptAttentionApply"]["widgets_values"][0] = ", ".join(concepts)
        by_type["EmptySD3LatentImage"]["widgets_values"][2] = batch
        by_type["KSampler"]["widgets_values"][2] = steps
        by_type["ConceptSaliencyToMask"]["widgets_values"][0] = ""
        self.maps, self.mask = by_type["ConceptSaliency"]["id"], by_type["ConceptSaliencyToMask"]["id"]
        self.load(flow)
        self.js("""([maps, mask]) => {
            const add = (type, from, output, settings = {}) => {
                const node = LiteGraph.createNode(type);
                app.graph.add(node);
                app.graph.getNodeById(from).connect(output, node, 0);
                for (const [name, value] of Object.entries(settings)) node.widgets.find(w => w.name === name).value = value;
                return node;
            };
            add("ConceptSaliencySave", maps, 0, {filename_prefix: "explorer"});
            add("PreviewImage", add("MaskToImage", mask, 0).id, 0).title = "the mask";
        }""", [self.maps, self.mask])

    def js(self, code: str, argument=None):
        return self.page.evaluate(code, argument)

    def load(self, flow: dict) -> None:
        self.js("async flow => { await app.loadGraphData(flow) }", flow)
        self.page.wait_for_function("count => app.graph.nodes.length === count", arg=len(flow["nodes"]))

    def panel(self, node: int, code: str, argument=None):
        """What a function of (panel, argument) returns."""
        return self.js(f"([id, argument]) => ({code})(app.graph.getNodeById(id).widgets.find(w => w.name === 'concept_explorer')?.panel, "
                       "argument)", [node, argument])

    def run(self) -> dict:
        """Queue as the frontend does and wait until the panels show it; returns the outputs of the run by node."""
        before = len(self.server.get("/history"))
        self.js("app.queuePrompt(0)")
        deadline = time.monotonic() + 300
        while len(history := self.server.get("/history")) == before:
            assert time.monotonic() < deadline, self.server.log.read_text()[-2000:]
            self.page.wait_for_timeout(200)
        entry = list(history.values())[-1]
        assert entry["status"]["status_str"] == "success", self.server.messages(entry, "execution_error")
        for node in (self.maps, self.mask):
            self.shows(node, entry["outputs"][str(node)]["concept_explorer"][0]["filename"])
        return entry["outputs"]

    def shows(self, node: int, file: str) -> None:
        self.page.wait_for_function("""([id, file]) => { const panel = app.graph.getNodeById(id)?.widgets.find(
            w => w.name === 'concept_explorer')?.panel; return panel?.maps && panel.shown === file }""", arg=[node, file])
        self.page.wait_for_timeout(300)  # the next frames

    def saved(self) -> Saliency:
        """What Save Saliency wrote last."""
        return Saliency.load(sorted(self.server.folder.glob("output/explorer_*.safetensors"))[-1])

    def look_at(self, node: int) -> None:
        """Bring a node to the left of the window, as large as it is."""
        self.js("""id => { const node = app.graph.getNodeById(id), {ds} = app.canvas; ds.scale = 1;
            [ds.offset[0], ds.offset[1]] = [500 - node.pos[0], 130 - node.pos[1]]; app.graph.setDirtyCanvas(true, true) }""", node)
        self.page.wait_for_timeout(700)

    def canvas(self, node: int) -> dict:
        """Where the picture of a panel lies on the screen."""
        return self.panel(node, "p => p.stage.canvas.getBoundingClientRect().toJSON()")

    def hover(self, node: int, down: float, across: float) -> None:
        box = self.canvas(node)
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        self.page.wait_for_timeout(100)

    def slide(self, node: int, name: str, to: float, while_down=None) -> float:
        """Drag a slider by its knob to a share of its length; returns its value."""
        where = self.panel(node, """(p, name) => { const input = p.element.querySelector(`[data-name=${name}]`);
            const {x, y, width, height} = input.getBoundingClientRect();
            return {x, y, width, height, now: (input.value - input.min) / (input.max - input.min)} }""", name)
        knob, y = 16, where["y"] + where["height"] / 2
        at = lambda share: where["x"] + knob / 2 + share * (where["width"] - knob)  # noqa: E731
        self.page.mouse.move(at(where["now"]), y)
        self.page.mouse.down()
        self.page.mouse.move(at((where["now"] + to) / 2), y)
        self.page.mouse.move(at(to), y)
        self.page.wait_for_timeout(300)
        if while_down:
            while_down()
        self.page.mouse.up()
        self.page.wait_for_timeout(300)
        return self.panel(node, "(p, name) => Number(p.element.querySelector(`[data-name=${name}]`).value)", name)

    def ranking(self, node: int) -> list[tuple[str, str]]:
        """What the list says, in the order in which it is seen."""
        return self.panel(node, """p => [...p.list.children].sort((a, b) => a.style.order - b.style.order).map(
            row => [row.querySelector('.ce-name').textContent, row.querySelector('.ce-value').textContent])""")

    def widget(self, name: str):
        return self.js("([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value", [self.mask, name])

    def set(self, **values) -> None:
        """Set widgets of Saliency to Mask as the frontend does, and wait for the picture."""
        self.js("""([id, values]) => { const node = app.graph.getNodeById(id); for (const [name, value] of Object.entries(values)) {
            const widget = node.widgets.find(w => w.name === name);
            widget.value = value; widget.callback?.(value, app.canvas, node); } }""",
                [self.mask, values])
        self.page.wait_for_timeout(300)

    def drawn_mask(self) -> np.ndarray:
        """The mask in the browser, H x W."""
        height, width = self.panel(self.mask, "p => p.maps.size")
        values = self.panel(self.mask, "p => { p.painted(); return [...p.mask] }")
        return np.array(values, dtype=np.float32).reshape(height, width)

    def made_masks(self, outputs: dict) -> list[np.ndarray]:
        """The masks that the node made, each H x W."""
        node = self.js("() => app.graph.nodes.find(n => n.title === 'the mask').id")
        return [self.pixels(image)[..., 0] / np.float32(255) for image in outputs[str(node)]["images"]]

    def pixels(self, image: dict) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.server.image(image))).convert("RGB"), dtype=np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks; of two empty ones 1."""
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def seconds(shown: str) -> float:
    return float(shown.rstrip("%")) / 100


def all_shares(saved: Saliency, picture: int, y: int, x: int) -> dict[str, float]:
    maps = torch.cat((saved.maps, saved.contrast_maps), dim=1)[picture, :, y, x]
    return dict(zip((*saved.concepts, *saved.contrast), maps.tolist()))


def test_hover_ranks_what_python_computes(page, server):
    flow = Explorers(page, server)
    outputs = flow.run()
    saved = flow.saved()
    flow.look_at(flow.maps)
    keep(page, "saliency_before_hover")
    presence = dict(flow.ranking(flow.maps))
    assert [presence[name] for name in saved.concepts] == [f"{value:.2f}" for value in saved.presence[0].tolist()]
    furthest, cells = 0.0, saved.maps.shape[2]
    for y, x in ((2, 3), (6, 5), (6, 11), (9, 10), (14, 7)):
        flow.hover(flow.maps, (y + 0.5) / cells, (x + 0.5) / cells)
        expected, seen = all_shares(saved, 0, y, x), flow.ranking(flow.maps)
        furthest = max([furthest, *(abs(seconds(shown) - expected[name]) for name, shown in seen)])
        assert {name for name, _ in seen} == {*saved.concepts, *saved.contrast}
        assert all(expected[first[0]] >= expected[second[0]] - 1 / 255 for first, second in itertools.pairwise(seen))
        keep(page, f"saliency_hover_{y}_{x}")
    print(f"shares of 5 patches: at most {furthest:.4f} from Python's")
    assert furthest <= 0.5 / 255 + 0.005  # 8 bits, and what is rounded to be read
    assert not page.errors

    file = outputs[str(flow.maps)]["concept_explorer"][0]
    size, message = len(server.image({k: file[k] for k in ("filename", "subfolder", "type")})), len(json.dumps(outputs[str(flow.maps)]))
    print(f"bytes: {size} of maps ({6} steps, {len(expected)} rows, 16 x 16 patches), {message} in the node's message")
    assert size < 2_000_000 and message < 2000

    frames = flow.panel(flow.maps, """async p => { const took = []; for (let k = 0; k < 20; k++) {
        const start = performance.now(), {left, top, width} = p.stage.canvas.getBoundingClientRect();
        p.stage.canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: left + width * (k % 2 ? 0.3 : 0.7), clientY: top + 40}));
        took.push(performance.now() - start); await new Promise(requestAnimationFrame); } return took.sort((a, b) => a - b) }""")
    print(f"pointer to ranking: median {frames[10]:.1f} ms, longest {frames[-1]:.1f} ms")


def test_colours_are_those_of_the_pictures(page, server):
    flow = Explorers(page, server)
    tiles = [flow.pixels(image) for image in flow.run()[str(flow.maps)]["images"]]
    for row, tile in enumerate(tiles):
        flow.panel(flow.maps, "(p, row) => { p.choose(row); p.painted() }", row)
        drawn = np.array(flow.panel(flow.maps, "p => [...p.stage.canvas.getContext('2d').getImageData(0, 0, 256, 256).data]"))
        apart = np.abs(drawn.reshape(256, 256, 4)[..., :3] - tile[-256:])
        print(f"row {row}: colours at most {apart.max():.0f} of 255 apart, {apart.mean():.2f} in the mean")
        assert apart.max() <= 4 and apart.mean() < 1


def test_click_keys_opacity_and_steps(page, server):
    flow = Explorers(page, server)
    flow.run()
    flow.look_at(flow.maps)
    chosen = lambda: flow.panel(flow.maps, "p => p.list.querySelector('[aria-checked=true] .ce-name').textContent")  # noqa: E731
    assert chosen() == "balloon"
    page.locator(".ce-panel .ce-row", has_text="tree").first.click()
    assert chosen() == "tree"
    flow.panel(flow.maps, "p => p.stage.element.focus()")
    page.keyboard.press("3")
    assert chosen() == "sand"
    page.keyboard.press("8")  # there are but three
    assert chosen() == "sand"
    saved = flow.saved()
    winner = int(saved.maps[0, :, 6, 11].argmax())
    box = flow.canvas(flow.maps)
    page.mouse.click(box["x"] + 11.5 / 16 * box["width"], box["y"] + 6.5 / 16 * box["height"])
    assert chosen() == saved.concepts[winner]
    page.mouse.move(10, 600)
    flow.panel(flow.maps, "p => p.stage.element.focus()")
    page.keyboard.press("ArrowUp")
    assert flow.panel(flow.maps, "p => p.stage.patch") == {"y": 7, "x": 8}
    assert flow.panel(flow.maps, "p => p.caption.textContent").endswith("8, column 9")

    mean = lambda: flow.panel(flow.maps, "p => { p.painted(); return [...p.stage.canvas.getContext('2d').getImageData(0, 0, 256, 256).data]"  # noqa: E731
                                         ".reduce((a, b) => a + b) }")
    opaque = mean()
    assert flow.slide(flow.maps, "opacity", 0) == 0
    assert mean() != opaque
    keep(page, "saliency_opacity_0")
    flow.slide(flow.maps, "opacity", 0.8)

    progress = flow.panel(flow.maps, "p => p.maps.progress")
    assert len(progress) == 6
    shown = {}
    for step in (0, 3):
        assert flow.slide(flow.maps, "step", step / 6) == step
        keep(page, f"saliency_step_{step}")
        shown[step] = dict(flow.ranking(flow.maps)), np.array(flow.panel(flow.maps, "(p, m) => [...p.maps.levels.subarray("
                                                              "m * p.maps.rows * 256, (m + 1) * p.maps.rows * 256)]", step + 1))
    for step, (presence, levels) in shown.items():  # the node's own result of that step alone
        flow.js("""([id, at]) => { for (const name of ['start_percent', 'end_percent'])
            app.graph.getNodeById(id).widgets.find(w => w.name === name).value = at }""", [flow.maps, round(progress[step], 2)])
        flow.run()
        alone = flow.saved()
        maps = torch.cat((alone.maps, alone.contrast_maps), dim=1)[0]
        furthest = (torch.from_numpy(levels).view(maps.shape) / 255 - maps).abs().max().item()
        print(f"step {step}: maps at most {furthest:.4f} from Python's")
        assert furthest <= 0.5 / 255 + 1e-6
        assert all(abs(float(presence[name]) - value) < 0.01 for name, value in zip(alone.concepts, alone.presence[0].tolist()))


def test_ten_concepts_on_a_batch_of_four(page, server):
    words = "balloon, tree, sand, cat, dragon, house, moon, boat, fish, apple".split(", ")
    flow = Explorers(page, server, words, batch=4, steps=3)
    outputs = flow.run()
    saved = flow.saved()
    flow.look_at(flow.maps)
    assert flow.panel(flow.maps, "p => [p.maps.pictures, p.maps.concepts.length, p.maps.moments]") == [4, 10, 4]
    for picture in (3, 1):
        flow.slide(flow.maps, "picture", picture / 3)
        flow.hover(flow.maps, 6.5 / 16, 5.5 / 16)
        seen, expected = flow.ranking(flow.maps), all_shares(saved, picture, 6, 5)
        assert max(abs(seconds(shown) - expected[name]) for name, shown in seen) <= 0.5 / 255 + 0.005
        keep(page, f"ten_concepts_picture_{picture + 1}")
    flow.panel(flow.maps, "p => p.stage.element.focus()")
    page.keyboard.press("0")
    assert flow.panel(flow.maps, "p => p.row") == 9
    flow.set(concept="apple", method="otsu")
    made = flow.made_masks(flow.run())
    assert len(made) == 4
    for picture in range(4):
        flow.panel(flow.mask, "(p, picture) => { p.picture = picture }", picture)
        overlap = iou(flow.drawn_mask(), made[picture])
        print(f"picture {picture + 1}: IoU {overlap:.4f}")
        assert overlap >= 0.98
    assert len(server.image({k: outputs[str(flow.maps)]["concept_explorer"][0][k] for k in ("filename", "subfolder", "type")})) < 2_000_000


SHAPES = [dict(method="auto"), dict(method="auto", refine=False), dict(method="auto", concept="balloon + tree"), dict(method="mean"),
          dict(method="otsu", refine=False), dict(method="percentile", threshold=0.83),
          dict(method="absolute", threshold=0.3, refine=False), dict(method="argmax"), dict(method="soft"),
          dict(method="argmax", refine=False, concept="1 + 3"),
          dict(method="soft", refine=False, invert=True), dict(method="auto", grow=7), dict(method="mean", grow=-3, refine=False),
          dict(method="auto", feather=9), dict(method="otsu", grow=12, feather=20, invert=True), dict(method="auto", concept="cat"),
          dict(method="percentile", threshold=0.6, min_area=400, fill_holes=True, refine=False), dict(method="auto", feather=200),
          dict(method="auto", feather=600)]  # wider than the picture
PLAIN = dict(concept="balloon", method="auto", threshold=0.5, grow=0, feather=0, fill_holes=False, min_area=0, invert=False, refine=True)


def test_the_mask_in_the_browser_is_the_nodes(page, server):
    if page.name == "vue":
        pytest.skip("the same code as in the classic frontend: once is enough")
    flow = Explorers(page, server, ("balloon", "tree", "sand", "cat"))
    flow.run()
    for shape in SHAPES:
        flow.set(**{**PLAIN, **shape})
        drawn = flow.drawn_mask()
        made, = flow.made_masks(flow.run())
        overlap, furthest = iou(drawn, made), np.abs(drawn - made).max()
        print(f"{shape}: IoU {overlap:.4f}, {((drawn > 0.5) != (made > 0.5)).sum()} pixels differ, at most {furthest:.3f}, "
              f"{(made > 0.5).mean():.3f} of the picture")
        assert overlap >= 0.98
        assert np.abs(drawn - made).mean() < 0.004  # pictures have 8 bits


def test_dragging_shows_the_mask_that_the_next_run_makes(page, server):
    flow = Explorers(page, server)
    flow.run()
    flow.look_at(flow.mask)
    flow.set(method="absolute", threshold=0.5)
    keep(page, "mask_before_dragging")
    for name, to in (("grow", 0.6), ("threshold", 0.25), ("feather", 0.15)):
        before, old = flow.drawn_mask(), flow.widget(name)

        def dragging():
            assert flow.widget(name) == old and not np.array_equal(flow.drawn_mask(), before)
            keep(page, f"mask_dragging_{name}")

        value = flow.slide(flow.mask, name, to, dragging)
        assert value != old and flow.widget(name) == value
        assert flow.js("async ([id, name]) => (await app.graphToPrompt()).output[id].inputs[name]", [flow.mask, name]) == value
    for refine in (True, False):
        flow.set(refine=refine)
        drawn = flow.drawn_mask()
        made, = flow.made_masks(flow.run())
        print(f"let go, {refine=}: IoU {iou(drawn, made):.4f}, at most {np.abs(drawn - made).max():.4f} apart")
        assert iou(drawn, made) >= 0.98 and np.abs(drawn - made).max() <= 1.01 / 255  # what the picture's 8 bits cut off

    page.locator(".ce-chip", has_text="tree").click()
    assert flow.widget("concept") == "tree"
    page.keyboard.down("Shift")
    page.locator(".ce-chip", has_text="sand").click()
    page.keyboard.up("Shift")
    assert flow.widget("concept") == "tree + sand"
    saved = flow.saved()
    box = flow.canvas(flow.mask)
    page.mouse.click(box["x"] + 5.5 / 16 * box["width"], box["y"] + 6.5 / 16 * box["height"])
    assert flow.widget("concept") == saved.concepts[int(saved.maps[0, :, 6, 5].argmax())]
    flow.panel(flow.mask, "p => p.element.querySelector('[data-name=grow]').focus()")
    page.keyboard.press("ArrowRight")
    assert flow.widget("grow") == flow.panel(flow.mask, "p => Number(p.sliders.grow.input.value)")
    flow.set(method="otsu")
    assert flow.panel(flow.mask, "p => p.sliders.threshold.input.disabled")
    assert not page.errors


def test_names_are_text(page, server):
    maps = torch.rand(1, len(HOSTILE), 4, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    saliency = Saliency(tuple(HOSTILE), maps, (64, 64), (64, 64), torch.rand(1, len(HOSTILE)), (), torch.zeros(1, 0, 4, 4))
    saliency.save(server.folder / "input" / "hostile.safetensors")
    explore.save(server.folder / "temp" / "hostile.safetensors", saliency)
    flow = Explorers(page, server)
    flow.js("""id => { const load = LiteGraph.createNode('ConceptSaliencyLoad'), node = app.graph.getNodeById(id); app.graph.add(load);
        load.widgets.find(w => w.name === 'file').value = 'hostile.safetensors'; node.disconnectInput(1); load.connect(0, node, 0) }""",
            flow.mask)
    flow.run()
    flow.js("""id => app.graph.getNodeById(id).onExecuted({concept_explorer: [
        {filename: 'hostile.safetensors', subfolder: '', type: 'temp', pictures: []}]})""", flow.maps)
    flow.shows(flow.maps, "hostile.safetensors")
    flow.look_at(flow.maps)
    assert [name for name, _ in flow.ranking(flow.maps)][:len(HOSTILE)] == HOSTILE
    assert flow.panel(flow.mask, "p => [...p.chips.children].map(chip => chip.textContent)") == HOSTILE
    assert flow.panel(flow.mask, "p => p.element.querySelectorAll('img, b, i, script').length") == 0
    keep(page, "hostile_names")
    for row, name in enumerate(HOSTILE):
        flow.panel(flow.mask, "(p, row) => p.pick(row, false)", row)
        assert flow.widget("concept") == (str(row + 1) if "+" in name else name)
        assert flow.panel(flow.mask, "p => { p.painted(); return p.rows }") == [row]
    flow.run()  # the node knows the last of them
    assert flow.js("() => window.pwned") is None and not page.errors
    assert page.locator("img[src='x']").count() == 0  # nor in what the node says below


def test_saved_closed_and_opened_again(page, server):
    flow = Explorers(page, server)
    flow.set(grow=5, concept="tree")
    file = flow.run()[str(flow.mask)]["concept_explorer"][0]["filename"]
    saved = flow.js("() => app.graph.serialize()")
    values = {node["id"]: node.get("widgets_values") for node in saved["nodes"]}
    assert len(list(values[int(flow.mask)] if flow.mask in values else values[str(flow.mask)])) == 9, values  # the widgets', and no more
    prompt = flow.js("async id => (await app.graphToPrompt()).output[id].inputs", flow.mask)
    assert "concept_explorer" not in prompt and prompt["grow"] == 5
    first = flow.js("() => app.extensionManager.workflow.activeWorkflow.path")
    flow.load(json.loads((REPOSITORY / "workflows" / "quickstart_demo.json").read_text(encoding="utf-8")))
    assert flow.widget("grow") == 0 and flow.panel(flow.mask, "p => !p.maps")
    if flow.js("() => app.extensionManager.workflow.activeWorkflow.path") != first:  # each in a tab of its own: back to the first
        page.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
        flow.shows(flow.mask, file)
        assert flow.widget("grow") == 5 and flow.widget("concept") == "tree"
    flow.load(saved)
    assert flow.widget("grow") == 5 and flow.widget("concept") == "tree"
    drawn = flow.made_masks(flow.run())[0]
    assert iou(flow.drawn_mask(), drawn) >= 0.98 and not page.errors


def test_what_was_chosen_is_there_again_when_a_saved_workflow_is_opened(page, server):
    flow = Explorers(page, server)
    flow.run()
    flow.look_at(flow.maps)
    page.locator(".ce-panel .ce-row", has_text="sand").first.click()
    opacity, step = flow.slide(flow.maps, "opacity", 0.4), flow.slide(flow.maps, "step", 2 / 6)
    kept = {"concept": "sand", "opacity": opacity, "step": step + 1}
    saved = json.loads(flow.js("() => JSON.stringify(app.graph.serialize())"))  # as it is in a file
    assert next(node for node in saved["nodes"] if node["id"] == flow.maps)["properties"]["concept_explorer"] == kept
    assert "sand" not in flow.js("async id => JSON.stringify((await app.graphToPrompt()).output[id])", flow.maps)
    flow.load(json.loads((REPOSITORY / "workflows" / "quickstart_demo.json").read_text(encoding="utf-8")))
    flow.load(saved)
    flow.run()  # what ran before is not run again
    state = lambda: flow.panel(flow.maps, "p => [p.maps.names[p.row], p.opacity, p.moment]")  # noqa: E731
    shown = """p => [p.list.querySelector('[aria-checked=true] .ce-name').textContent,
        p.sliders.opacity.input.value, p.sliders.step.input.value]"""
    assert state() == ["sand", opacity, step + 1]
    assert flow.panel(flow.maps, shown) == ["sand", f"{opacity:g}", f"{step:g}"]
    for foreign in ({"concept": "dragon", "opacity": "wide", "step": 99}, {"concept": 7, "opacity": -1, "step": 1.5}, "text", [1]):
        next(node for node in saved["nodes"] if node["id"] == flow.maps)["properties"]["concept_explorer"] = foreign
        flow.load(saved)
        flow.run()
        assert state() == ["balloon", 0.8, 0]
    assert not page.errors


def test_concepts_behind_the_borders_of_subgraphs_are_known_before_a_run(page, server):
    """Concept Attention in a subgraph, then what reads it in another, then one in the other; the words typed on the border."""
    flow = Explorers(page, server)
    chips = """path => { let graph = app.graph, node;
        for (const id of path) { node = graph.getNodeById(id); graph = node.subgraph ?? graph; }
        const panel = node.widgets.find(w => w.name === 'concept_explorer').panel; panel.sync();
        return [...panel.chips.children].map(chip => chip.textContent) }"""
    enclose = """([path, types]) => { let graph = app.graph; for (const id of path) graph = graph.getNodeById(id).subgraph;
        const { node } = graph.convertToSubgraph(new Set(graph.nodes.filter(one => types.includes(one.type))));
        return [...path, node.id, ...node.subgraph.nodes.filter(one => one.type === 'ConceptSaliencyToMask').map(one => one.id)] }"""
    words = ["balloon", "tree", "sand"]
    assert flow.js(chips, [flow.mask]) == words
    outer = flow.js(enclose, [[], ["ConceptAttentionApply"]])
    assert flow.js(chips, [flow.mask]) == words
    inner = flow.js(enclose, [[], ["ConceptSaliency", "ConceptSaliencyToMask"]])
    assert len(inner) == 2 and flow.js(chips, inner) == words
    deeper = flow.js(enclose, [inner[:1], ["ConceptSaliencyToMask"]])
    assert len(deeper) == 3 and flow.js(chips, deeper) == words
    whole = flow.js("""async types => { const types_of = node => types.includes(node.type) || node.subgraph;
        const { node } = app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(types_of))); return node.id }""", ["CLIPTextEncode"])
    assert flow.js(chips, [whole, *deeper]) == words
    flow.js("""([whole, apply]) => { const graph = app.graph.getNodeById(whole).subgraph, inner = graph.getNodeById(apply).subgraph;
        inner.nodes.find(n => n.type === 'ConceptAttentionApply').widgets.find(w => w.name === 'concepts').value = 'moon, sea' }""",
            [whole, outer[0]])
    assert flow.js(chips, [whole, *deeper]) == ["moon", "sea"]
    keep(page, "subgraphs")
    assert not page.errors


def test_concepts_that_are_typed_on_a_subgraphs_border(page, server):
    flow = Explorers(page, server)
    chips = """id => { const {panel} = app.graph.getNodeById(id).widgets.find(w => w.name === 'concept_explorer'); panel.sync();
        return [...panel.chips.children].map(c => c.textContent) }"""
    border = flow.js("""() => { const { node } = app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(
        one => one.type === 'ConceptAttentionApply'))); const inner = node.subgraph.nodes[0];
        const slot = inner.inputs.findIndex(input => input.name === 'concepts');
        const input = node.subgraph.addInput('concepts', 'STRING'); input.connect(inner.inputs[slot], inner); return node.id }""")
    page.wait_for_timeout(500)
    typed = flow.js("""id => { const node = app.graph.getNodeById(id), widget = node.widgets.find(w => w.name === 'concepts');
        if (!widget) return false; widget.value = 'moon, sea'; return widget.value }""", border)
    assert typed == "moon, sea"
    assert flow.js(chips, flow.mask) == ["moon", "sea"]
    prompt = flow.js("""async () => Object.values((await app.graphToPrompt()).output).find(
        n => n.class_type === 'ConceptAttentionApply').inputs""")
    assert prompt["concepts"] == "moon, sea"  # the frontend takes the same for what is typed
    flow.js("""id => { const text = LiteGraph.createNode('PrimitiveStringMultiline'); app.graph.add(text);
        const node = app.graph.getNodeById(id); text.connect(0, node, node.inputs.findIndex(i => i.name === 'concepts')) }""", border)
    assert flow.js(chips, flow.mask) == []  # made by another node: known after a run
    assert not page.errors


def test_two_explorers_do_not_mix(page, server):
    flow = Explorers(page, server)
    other = flow.js("""id => { const first = app.graph.getNodeById(id), second = LiteGraph.createNode('ConceptSaliency');
        app.graph.add(second); second.pos = [first.pos[0], first.pos[1] + first.size[1] + 120];
        for (const slot of [0, 1, 2]) {
            first.getInputNode(slot).connect(app.graph.links.get(first.inputs[slot].link).origin_slot, second, slot);
        }
        second.widgets.find(w => w.name === 'temperature').value = 30; return second.id }""", flow.maps)
    outputs = flow.run()
    flow.shows(other, outputs[str(other)]["concept_explorer"][0]["filename"])
    flow.look_at(flow.maps)
    flow.hover(flow.maps, 0.4, 0.3)
    one, two = flow.ranking(flow.maps), flow.ranking(other)
    assert [name for name, _ in two[:3]] == ["balloon", "tree", "sand"] and all("%" in value for _, value in one)
    flow.panel(flow.maps, "p => p.choose(2)")
    assert flow.panel(other, "p => p.row") == 0
    assert [value for _, value in two[:3]] != [value for _, value in dict(enumerate(flow.ranking(flow.maps))).values()][:3]
    page.mouse.move(10, 600)
    keep(page, "two_explorers")


def test_heatmaps_while_sampling_on_concept_attention(page, server):
    """Each node shows its own preview while the sampler runs, and the explorer its maps afterwards."""
    flow = Explorers(page, server, ("balloon", "tree", "sand", "cat"), steps=60)
    flow.js("app.extensionManager.setting.set('Comfy.Execution.PreviewMethod', 'latent2rgb')")  # a page reads the server's once only
    attention, sampler = (flow.js("type => app.graph.nodes.find(n => n.type === type).id", kind)
                          for kind in ("ConceptAttentionApply", "KSampler"))
    seed = 7 if page.name == "classic" else 8  # what one frontend has had made, the server does not make again for the other
    flow.js("""([id, sampler, seed]) => { const at = (node, name) => app.graph.getNodeById(node).widgets.find(w => w.name === name);
        at(id, 'live_preview').value = true; at(sampler, 'seed').value = seed }""", [attention, sampler, seed])
    flow.look_at(attention)
    flow.js("app.queuePrompt(0)")
    shown = """async id => { for (let tries = 0; tries < 50; tries++) { // each step takes the picture before it away
        const image = new Image();
        image.src = app.nodePreviewImages[id]?.[0] ?? '';
        if (await image.decode().then(() => true, () => false)) return [image.naturalWidth, image.naturalHeight];
        await new Promise(done => setTimeout(done, 50)) } return null }"""
    page.wait_for_function("id => app.nodePreviewImages[id]?.length", arg=str(attention), timeout=300_000)
    page.wait_for_timeout(500)
    sizes = flow.js(shown, str(attention)), flow.js(shown, str(sampler))
    keep(page, "live_preview")
    print(f"Concept Attention shows {sizes[0]}, the sampler {sizes[1]}")
    running = flow.js("() => app.runningNodeId")
    assert str(running) == str(sampler)  # the screenshot was taken meanwhile
    assert max(sizes[0]) == 512 and sizes[0] != sizes[1]
    if __version__ != "0.3.64":  # there the method is chosen when the server starts
        assert sizes[1]
    outputs = flow.run()  # waits for it, and shows the same again
    assert len(outputs[str(flow.maps)]["images"]) == 4
    keep(page, "live_preview_afterwards")
    assert not page.errors


def test_it_can_be_switched_off(page, chromium, server):
    server.post("/settings/ConceptSaliency.Explorer", False)
    try:
        other = opened(chromium, server, page.name)
        flow = Explorers(other, server)
        assert flow.panel(flow.mask, "p => !p")
        other.evaluate("app.queuePrompt(0)")
        other.wait_for_function("id => app.nodeOutputs[id]?.images?.length", arg=str(flow.maps), timeout=300_000)
        other.wait_for_timeout(1500)
        assert flow.panel(flow.maps, "p => !p") and not flow.js("id => app.graph.getNodeById(id).hideOutputImages", flow.maps)
        other.context.close()
    finally:
        server.post("/settings/ConceptSaliency.Explorer", True)
