/** On Concept Saliency: the picture with the heat of one concept, and every concept's share of the patch that is pointed at. */

import { Stage, eachFrame, make, percent, pixelsOf, slider } from "./elements.js";
import { say } from "./texts.js";

const SIDE = 512; // pixels at most that are painted
const KEPT = "concept_explorer"; // the property of the node that holds what was chosen, so that a saved workflow has it

export class SaliencyPanel {
  constructor(node) {
    this.node = node;
    this.moment = this.picture = this.row = 0;
    this.opacity = 0.8; // as in core/render.py
    this.paint = eachFrame(() => this.painted());
    this.stage = new Stage(say("picture_help"), {
      locate: (down, across) => this.maps.patch(down, across),
      outline: (patch) => this.maps.outline(patch),
      grid: () => this.maps,
      pointed: () => this.rank(),
      chosen: (patch) => this.choose(this.maps.strongest(this.moment, this.picture, patch)),
      key: (key) => this.digit(key),
    });
    this.caption = make("div", { class: "ce-caption", role: "status" });
    this.list = make("div", { class: "ce-list", role: "radiogroup", "aria-label": say("concepts") });
    this.sliders = {
      opacity: slider("opacity", { min: 0, max: 1, step: 0.01, value: this.opacity, text: percent }, (opacity, done) => {
        this.opacity = opacity;
        this.refresh(done);
      }),
      step: slider("step", { min: 0, max: 0, step: 1, value: 0, text: (at) => this.stepName(at) }, (at, done) => {
        this.moment = at === this.maps.progress.length ? 0 : at + 1;
        this.refresh(done);
      }),
      picture: slider("picture", { min: 1, max: 1, step: 1, value: 1 }, (number) => ((this.picture = number - 1), this.refresh())),
    };
    this.element = make("div", { class: "ce-panel", role: "group", "aria-label": say("explorer") }, this.stage.element, this.caption, this.list,
      make("div", { class: "ce-sliders" }, ...Object.values(this.sliders).map((one) => one.element)));
    this.element.style.minHeight = `${this.minHeight() - 20}px`; // less the frontend's margins
  }

  minHeight() {
    return 430; // with a list of ten
  }

  fail(reason) {
    this.caption.textContent = reason;
  }

  /** maps: see maps.js; pictures: images, none where the node has none. */
  show(maps, pictures) {
    Object.assign(this, { maps, pictures, greys: new Map() }, this.chosen(maps));
    this.picture = Math.min(this.picture, maps.pictures - 1);
    this.sliders.opacity.set(this.opacity);
    this.sliders.step.set(this.moment ? this.moment - 1 : maps.progress.length, { max: maps.progress.length });
    this.sliders.picture.set(this.picture + 1, { max: maps.pictures });
    this.sliders.step.element.hidden = !maps.progress.length;
    this.sliders.picture.element.hidden = maps.pictures < 2;
    this.sliders.opacity.element.hidden = !pictures.length;
    this.list.replaceChildren(...maps.names.map((name, row) => this.entry(name, row)));
    this.refresh();
  }

  refresh(chosen = false) {
    if (chosen) this.keep();
    this.rank();
    this.paint();
  }

  /** Write what was chosen into the node: the concept by its name; step 0 is "all". */
  keep() {
    const { maps, row, opacity, moment } = this;
    (this.node.properties ??= {})[KEPT] = { concept: maps.names[row], opacity, step: moment };
  }

  /** What was chosen, as far as it is among these maps; whatever a workflow's file holds. */
  chosen(maps) {
    const { concept, opacity, step } = this.node.properties?.[KEPT] ?? {};
    return {
      row: Math.max(0, maps.names.indexOf(concept)),
      opacity: opacity >= 0 && opacity <= 1 ? Number(opacity) : this.opacity,
      moment: Number.isInteger(step) && step > 0 && step < maps.moments ? step : 0,
    };
  }

  /** A row of the list: number, name, bar, value. */
  entry(name, row) {
    const contrast = row >= this.maps.concepts.length;
    return make("button", { type: "button", role: "radio", class: contrast ? "ce-row ce-contrast" : "ce-row", "data-row": row,
      onclick: () => this.choose(row), onkeydown: (event) => this.digit(event.key) && event.stopPropagation() },
    make("span", { class: "ce-number" }, contrast ? "" : String(row + 1)), make("bdi", { class: "ce-name", title: name }, name),
    make("span", { class: "ce-bar" }, make("span", {})), make("span", { class: "ce-value" }));
  }

  choose(row) {
    this.row = row;
    this.refresh(true);
  }

  digit(key) {
    const row = key === "0" ? 9 : Number(key) - 1;
    if (!/^\d$/.test(key) || row >= this.maps.concepts.length) return false;
    this.choose(row);
    return true;
  }

  /** The list: of the patch that is pointed at the shares, the greatest first; else each concept's presence, in their order. */
  rank() {
    const { maps, moment, picture, stage: { patch } } = this;
    const value = (row) => patch ? maps.share(moment, picture, row, patch.y, patch.x)
      : row < maps.concepts.length ? maps.presence(moment, picture, row) : null;
    const values = maps.names.map((_, row) => value(row));
    const order = values.map((_, row) => row).sort((a, b) => (patch ? values[b] - values[a] : 0) || a - b);
    for (const entry of this.list.children) {
      const row = Number(entry.dataset.row);
      const shown = values[row];
      const says = shown === null ? say("contrast") : patch ? percent(shown) : shown.toFixed(2);
      const [, , bar, text] = entry.children;
      entry.style.order = order.indexOf(row);
      entry.setAttribute("aria-checked", row === this.row);
      entry.setAttribute("aria-label", `${maps.names[row]}: ${says}`);
      bar.style.visibility = shown === null ? "hidden" : "visible";
      bar.firstChild.style.width = `${100 * (shown ?? 0)}%`;
      bar.firstChild.style.background = `rgb(${maps.colours.subarray(3 * Math.round(255 * (shown ?? 0))).slice(0, 3).join()})`;
      text.textContent = says;
    }
    this.caption.textContent = patch ? say("patch", { y: patch.y + 1, x: patch.x + 1 }) : say("presence");
    const best = order[0];
    this.stage.element.setAttribute("aria-description", patch ? `${maps.names[best]}: ${percent(values[best])}` : maps.names[this.row]);
  }

  stepName(at) {
    const progress = this.maps?.progress ?? [];
    return at === progress.length ? say("all") : `${at + 1} · ${percent(progress[at])}`;
  }

  /** The picture in grey, and over it the heat: render.overlay of core/render.py; without a picture render.heatmaps. */
  painted() {
    const { maps, picture, opacity } = this;
    const scale = Math.min(1, SIDE / Math.max(...maps.size));
    const [height, width] = maps.size.map((side) => Math.max(1, Math.round(side * scale)));
    const heat = maps.enlarged(this.moment, picture, [this.row], height, width);
    const grey = this.pictures.length ? this.grey(picture % this.pictures.length, height, width) : null;
    const pixels = new Uint8ClampedArray(4 * heat.length);
    for (let i = 0; i < heat.length; i++) {
      const colour = 3 * Math.round(255 * heat[i]);
      const over = grey ? opacity * Math.sqrt(heat[i]) : 1;
      const under = grey ? grey[i] * (1 - over) : 0;
      for (let c = 0; c < 3; c++) pixels[4 * i + c] = under + over * maps.colours[colour + c];
      pixels[4 * i + 3] = 255;
    }
    this.stage.paint(pixels, height, width);
  }

  grey(number, height, width) {
    if (!this.greys.has(number)) {
      const pixels = pixelsOf(this.pictures[number], height, width);
      this.greys.set(number, Float32Array.from({ length: height * width }, (_, i) =>
        0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2]));
    }
    return this.greys.get(number);
  }
}
