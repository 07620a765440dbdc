/** The parts that both panels are made of. Text goes in as text only, never as HTML. */

import { say } from "./texts.js";

/** An element with attributes and children; a child that is a string is text. Listeners stand under "onclick" and so on. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A slider with its name before and its value behind it. changed(value, done): done when it was let go. */
export function slider(name, { min, max, step, value, text = String }, changed) {
  const input = make("input", { type: "range", min, max, step, "aria-label": say(name), "data-name": name });
  const output = make("output", {});
  const element = make("label", { class: "ce-slider" }, make("span", {}, say(name)), input, output);
  const tell = () => {
    output.textContent = text(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => (tell(), changed(Number(input.value), false)));
  input.addEventListener("change", () => changed(Number(input.value), true));
  const set = (now, bounds = {}) => {
    for (const [bound, limit] of Object.entries(bounds)) input.setAttribute(bound, limit);
    input.value = now;
    tell();
  };
  const allow = (reason) => {
    input.disabled = Boolean(reason);
    element.title = reason ?? "";
  };
  set(value);
  return { element, input, set, allow };
}

/**
 * The picture that is pointed at. patches(): {height, width} of the grid; locate(down, across): the patch {y, x} at shares of the
 * picture's sides, and of the picture that a patch covers {top, left, height, width}; pointed(patch or null, event).
 */
export class Stage {
  constructor(help, { locate, outline, grid, pointed, chosen, key }) {
    this.canvas = make("canvas", { width: 1, height: 1 });
    this.frame = make("div", { class: "ce-patch", hidden: "" });
    this.box = make("div", { class: "ce-box" }, this.canvas, this.frame);
    this.element = make("div", { class: "ce-stage", tabindex: "0", role: "application", "aria-label": help }, this.box);
    Object.assign(this, { locate, outline, grid, pointed, chosen, patch: null });
    this.canvas.addEventListener("pointermove", (event) => this.point(this.under(event)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => chosen(this.under(event), event));
    this.element.addEventListener("blur", () => this.point(null));
    this.element.addEventListener("keydown", (event) => {
      const moved = this.moved(event.key);
      if (moved) this.point(moved);
      else if (event.key === "Enter" && this.patch) chosen(this.patch, event);
      else if (event.ctrlKey || event.metaKey || event.altKey || !key(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  under(event) {
    const { top, left, width, height } = this.canvas.getBoundingClientRect(); // on the screen, however far the graph is zoomed
    return this.locate((event.clientY - top) / height, (event.clientX - left) / width);
  }

  moved(key) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    const { height, width } = this.grid() ?? {};
    if (!step || !height) return null;
    const from = this.patch ?? { y: height >> 1, x: width >> 1 };
    return { y: Math.min(height - 1, Math.max(0, from.y + step[0])), x: Math.min(width - 1, Math.max(0, from.x + step[1])) };
  }

  point(patch) {
    if (patch?.y === this.patch?.y && patch?.x === this.patch?.x) return;
    this.patch = patch;
    this.frame.hidden = !patch;
    if (patch) for (const [side, share] of Object.entries(this.outline(patch))) this.frame.style[side] = `${100 * share}%`;
    this.pointed(patch);
  }

  /** Show pixels, RGBA bytes of height x width. */
  paint(pixels, height, width) {
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.box.style.setProperty("--ce-ratio", width / height);
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  }
}

/** A picture -> its pixels, RGBA bytes at height x width. */
export function pixelsOf(picture, height, width) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/** Runs `paint` once before the next frame, however often it is asked for. */
export function eachFrame(paint) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  };
}

export function percent(share) {
  return `${(100 * share).toFixed(share >= 0.0005 && share < 0.0995 ? 1 : 0)}%`; // no 0.0%
}
