/** On Saliency to Mask: the mask over the picture while its sliders are moved; let go, and the node's widgets hold their values. */

import { Stage, eachFrame, make, percent, pixelsOf, slider } from "./elements.js";
import { Masks, THRESHOLDED } from "./masks.js";
import { Guide } from "./refine.js";
import { grownBox } from "./shapes.js";
import { say } from "./texts.js";
import { label, rowsOf, typedConcepts } from "./words.js";

const SETTINGS = ["method", "threshold", "grow", "feather", "fill_holes", "min_area", "invert", "refine"]; // the node's widgets
const RANGES = { threshold: { min: 0, max: 1, step: 0.01 }, grow: { min: -64, max: 64, step: 1 }, feather: { min: 0, max: 64, step: 1 } };
const LINE = [0.15 * 255, 255, 0.55 * 255]; // as in core/render.py

export class MaskPanel {
  static atOnce = true;

  constructor(node, app) {
    Object.assign(this, { node, app, held: {}, picture: 0 });
    this.paint = eachFrame(() => this.painted());
    this.stage = new Stage(say("mask_help"), {
      locate: (down, across) => this.maps.patch(down, across),
      outline: (patch) => this.maps.outline(patch),
      grid: () => this.maps,
      pointed: (patch) => this.tell(patch),
      chosen: (patch, event) => this.pick(this.maps.strongest(0, this.picture, patch), event.shiftKey),
      key: () => false,
    });
    this.chips = make("div", { class: "ce-chips", role: "group", "aria-label": say("concepts") });
    this.caption = make("div", { class: "ce-caption", role: "status" });
    this.sliders = Object.fromEntries(Object.entries(RANGES).map(([name, range]) =>
      [name, slider(name, { ...range, value: 0 }, (value, done) => this.hold(name, value, done))]));
    this.pictures = slider("picture", { min: 1, max: 1, step: 1, value: 1 }, (number) => ((this.picture = number - 1), this.paint()));
    this.element = make("div", { class: "ce-panel", role: "group", "aria-label": say("explorer"), onpointerenter: () => this.sync() },
      this.chips, this.stage.element, this.caption, ...Object.values(this.sliders).map((one) => one.element), this.pictures.element);
    this.element.addEventListener("focusin", () => this.sync());
    this.stage.element.hidden = this.pictures.element.hidden = true;
    this.caption.textContent = say("first");
    for (const widget of node.widgets ?? []) this.follow(widget);
    this.sync();
    this.size();
  }

  minHeight() {
    return this.maps ? 380 : 130;
  }

  size() {
    this.element.style.minHeight = `${this.minHeight() - 20}px`; // less the frontend's margins
  }

  /** maps: see maps.js; images: none where the node has none. */
  show(maps, images) {
    Object.assign(this, { maps, images, masks: new Map() });
    this.picture = Math.min(this.picture, maps.pictures - 1);
    this.stage.element.hidden = false;
    this.pictures.set(this.picture + 1, { max: maps.pictures });
    this.pictures.element.hidden = maps.pictures < 2;
    this.size();
    this.sync();
  }

  fail(reason) {
    this.caption.textContent = reason;
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  /** Another node gives this widget's value. */
  linked(name) {
    return this.node.inputs?.some((input) => input.widget?.name === name && input.link != null);
  }

  /** Show every change of a widget at once, wherever it was made. */
  follow(widget) {
    const { callback } = widget;
    widget.callback = (...values) => {
      const result = callback?.apply(widget, values);
      this.sync();
      return result;
    };
  }

  settings() {
    return { ...Object.fromEntries(SETTINGS.map((name) => [name, this.widget(name)?.value])), ...this.held };
  }

  /** Bring the chips and the sliders to the widgets' values. */
  sync() {
    const { method } = this.settings();
    for (const [name, { set, allow }] of Object.entries(this.sliders)) {
      const value = this.settings()[name] ?? 0;
      const { min, max } = RANGES[name];
      set(value, { min: Math.min(min, value), max: Math.max(max, value) });
      const unheeded = name === "threshold" && !THRESHOLDED.includes(method);
      allow(this.linked(name) ? say("linked") : method === "soft" ? say("soft") : unheeded ? say("unused") : null);
    }
    const names = this.names();
    const chosen = rowsOf(this.widget("concept")?.value ?? "", names) ?? [];
    if (this.chips.childElementCount !== names.length || names.some((name, row) => this.chips.children[row].textContent !== name)) {
      this.chips.replaceChildren(...names.map((name, row) => make("button", { type: "button", class: "ce-chip", dir: "auto", title: name,
        onclick: (event) => this.pick(row, event.shiftKey || event.ctrlKey || event.metaKey) }, name)));
    }
    names.forEach((_, row) => this.chips.children[row].setAttribute("aria-pressed", chosen.includes(row)));
    for (const chip of this.chips.children) chip.disabled = this.linked("concept");
    if (this.maps) this.paint();
  }

  /** The concepts that can be picked: as they are typed upstream, else those of the last run. */
  names() {
    return typedConcepts(this.node) ?? this.maps?.concepts ?? [];
  }

  /** A slider is moved: show it; it was let go: the widget holds it. */
  hold(name, value, done) {
    this.held[name] = value;
    if (!done) return this.paint();
    delete this.held[name];
    this.write(name, value);
  }

  /** Pick a concept, or add it to those picked, or take it away from them. */
  pick(row, adding) {
    const names = this.names();
    if (this.linked("concept") || row >= names.length) return;
    const before = adding ? rowsOf(this.widget("concept").value, names) ?? [] : [];
    const rows = before.includes(row) ? before.filter((one) => one !== row) : [...before, row];
    this.write("concept", (rows.length ? rows : [row]).map((one) => label(one, names)).join(" + "));
  }

  write(name, value) {
    const { node, app } = this;
    const widget = this.widget(name);
    node.graph?.beforeChange(); // one step to undo, and what starts "Run (On Change)"
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    node.graph?.afterChange();
    node.graph?.setDirtyCanvas(true, true);
  }

  /** What makes the masks of the picture that is shown. */
  maker() {
    if (!this.masks.has(this.picture)) {
      const [height, width] = this.maps.size;
      const image = this.images[this.picture % this.images.length];
      const pixels = image ? pixelsOf(image, height, width) : null;
      const guide = image ? new Guide(pixels, height, width, this.maps.token()) : null;
      this.masks.set(this.picture, Object.assign(new Masks(this.maps, this.picture, guide), { pixels }));
    }
    return this.masks.get(this.picture);
  }

  /** The mask in the picture: in colour inside, dark and grey outside, with a bright line between, as in core/render.py. */
  painted() {
    const maker = this.maker();
    const { height, width, pixels } = maker;
    this.rows = rowsOf(this.widget("concept")?.value ?? "", this.maps.concepts);
    this.mask = this.rows ? maker.mask({ ...this.settings(), rows: this.rows }) : new Float32Array(height * width);
    const line = outline(this.mask, height, width);
    const out = new Uint8ClampedArray(4 * this.mask.length);
    for (let i = 0, k = 0; k < out.length; i++, k += 4) {
      const inside = this.mask[i];
      const dark = pixels ? 0.25 * (1 - inside) * (0.299 * pixels[k] + 0.587 * pixels[k + 1] + 0.114 * pixels[k + 2]) : 0;
      for (let c = 0; c < 3; c++) out[k + c] = pixels ? (line[i] ? LINE[c] : dark + inside * pixels[k + c]) : 255 * inside;
      out[k + 3] = 255;
    }
    this.stage.paint(out, height, width);
    this.tell(this.stage.patch);
  }

  /** Below the picture: how much the mask takes, or whose the patch is that is pointed at. */
  tell(patch) {
    if (patch) {
      const row = this.maps.strongest(0, this.picture, patch);
      this.caption.textContent = `${this.maps.names[row]}: ${percent(this.maps.share(0, this.picture, row, patch.y, patch.x))}`;
    } else if (!this.rows) {
      this.caption.textContent = say("unknown");
    } else {
      const share = this.mask.reduce((sum, value) => sum + value, 0) / this.mask.length;
      const presence = Math.max(...this.rows.map((row) => this.maps.presence(0, this.picture, row)));
      this.caption.textContent = `${say("covered", { share: percent(share) })} · ${say("presence")} ${presence.toFixed(2)}`;
    }
  }
}

/** The pixels just outside of a mask's edge, in a line that can be seen on a node. */
function outline(mask, height, width) {
  const reach = Math.max(1, Math.round(Math.min(height, width) / 200));
  const inside = new Uint8Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (mask[i] > 0.5) inside[i] = 1;
  const around = grownBox(grownBox(inside, height, width, reach, true), height, width, reach);
  for (let i = 0; i < around.length; i++) around[i] -= inside[i];
  return around;
}
