/** The explorer on Concept Saliency and Saliency to Mask, put on the nodes through the frontend's own hooks. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { make } from "./elements.js";
import { Maps } from "./maps.js";
import { MaskPanel } from "./mask_panel.js";
import { SaliencyPanel } from "./saliency_panel.js";
import { say, speak } from "./texts.js";

const SETTING = "ConceptSaliency.Explorer";
const PANELS = { ConceptSaliency: SaliencyPanel, ConceptSaliencyToMask: MaskPanel };
const KEY = "concept_explorer"; // of the ui output, see nodes/explorer.py, and the widget's name

const setting = (name) => app.extensionManager?.setting?.get(name) ?? app.ui.settings.getSettingValue(name);
const wanted = () => setting(SETTING) !== false;

/** The panel of a node, made when it is first needed. */
function panelOf(node) {
  const known = node.widgets?.find((widget) => widget.name === KEY);
  if (known) return known.panel;
  speak(setting("Comfy.Locale"));
  if (!document.getElementById(KEY)) {
    document.head.append(make("link", { id: KEY, rel: "stylesheet", href: new URL("explorer.css", import.meta.url) }));
  }
  const Panel = PANELS[node.comfyClass];
  const panel = new Panel(node, app);
  const widget = node.addDOMWidget(KEY, KEY, panel.element, { serialize: false, hideOnZoom: false, getMinHeight: () => panel.minHeight() });
  Object.assign(widget, { serialize: false, panel });
  pan(panel.element);
  return panel;
}

/** In the classic frontend a node's elements lie over the canvas: hand on to it what moves and zooms the graph. */
function pan(element) {
  const classic = () => !globalThis.LiteGraph?.vueNodesMode;
  element.addEventListener("wheel", (event) => {
    const list = event.target.closest(".ce-list");
    if (classic() && !(list && list.scrollHeight > list.clientHeight)) app.canvas.processMouseWheel(event);
  });
  element.addEventListener("pointerdown", (event) => event.button === 1 && classic() && app.canvas.processMouseDown(event));
  element.addEventListener("pointermove", (event) => (event.buttons & 4) && classic() && app.canvas.processMouseMove(event));
  element.addEventListener("pointerup", (event) => event.button === 1 && classic() && app.canvas.processMouseUp(event));
}

const address = ({ filename, subfolder, type }) => `/view?${new URLSearchParams({ filename, subfolder, type })}`;

async function fetched(reference) {
  const reply = await api.fetchApi(address(reference));
  if (!reply.ok) throw new Error(`${reference.filename}: ${reply.status}`);
  return reply;
}

async function picture(reference) {
  return createImageBitmap(await (await fetched(reference)).blob(), { colorSpaceConversion: "none" });
}

/** Show what a run has sent to a node. */
async function show(node, output) {
  const reference = output?.[KEY]?.[0];
  node.conceptExplorer = node.hideOutputImages = Boolean(reference && wanted());
  if (!node.conceptExplorer) return;
  const panel = panelOf(node);
  if (panel.shown === reference.filename) return;
  panel.shown = reference.filename;
  try {
    const maps = fetched(reference).then((reply) => reply.arrayBuffer());
    const [file, ...pictures] = await Promise.all([maps, ...reference.pictures.map(picture)]);
    if (panel.shown === reference.filename) panel.show(new Maps(file), pictures);
  } catch (error) {
    console.warn("Concept Saliency:", error);
    if (panel.shown !== reference.filename) return;
    panel.fail(say("gone"));
    node.conceptExplorer = node.hideOutputImages = false;
  }
  node.graph?.setDirtyCanvas(true, true);
}

/** The node that an output belongs to: "id", or "subgraph:id". */
function located(locator) {
  const [id, inner] = String(locator).split(":");
  const root = app.rootGraph ?? app.graph;
  return inner === undefined ? root.getNodeById(id) : root.subgraphs?.get(id)?.getNodeById(inner);
}

app.registerExtension({
  name: SETTING,
  settings: [{ id: SETTING, category: ["Concept Saliency", "Explorer"], type: "boolean", defaultValue: true,
    name: "Show the explorer on Concept Saliency and Saliency to Mask",
    tooltip: "Point at the picture to see every concept's share; shape masks by hand. Off: pictures only, from the next run on." }],

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!(nodeData.name in PANELS)) return;
    const { onExecuted, onDrawBackground, onNodeCreated } = nodeType.prototype;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      show(this, output);
    };
    nodeType.prototype.onDrawBackground = function () { // draws the previews in the classic frontend; the explorer shows the same
      if (!this.conceptExplorer) onDrawBackground?.apply(this, arguments);
    };
    nodeType.prototype.onNodeCreated = function () {
      onNodeCreated?.apply(this, arguments);
      if (PANELS[nodeData.name].atOnce && wanted()) panelOf(this);
    };
  },

  loadedGraphNode(node) {
    node.widgets?.find((widget) => widget.name === KEY)?.panel.sync?.();
  },

  /** The outputs of a workflow that is opened again. */
  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs)) {
      const node = output?.[KEY] && located(locator);
      if (node) show(node, output);
    }
  },
});
