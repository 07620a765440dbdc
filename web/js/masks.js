/** Masks of one picture, by the rules of core/masks.py on the same maps, fast enough to follow a hand: what is slow is kept. */

import { feathered, filled, grown, inverted, islands, large } from "./shapes.js";

const [CRUMB, THERE, SPECK] = [1 / 255, 0.01, 0.0005]; // core/masks.py
export const THRESHOLDED = ["percentile", "absolute"]; // the methods that heed the threshold
const BINS = 256; // of Otsu's histogram, in kornia

export class Masks {
  /** guide: see refine.js, or null where there is no picture. */
  constructor(maps, picture, guide) {
    Object.assign(this, { maps, picture, guide });
    [this.height, this.width] = maps.size;
    this.kept = new Map();
  }

  keep(key, make) {
    if (!this.kept.has(key)) this.kept.set(key, make());
    return this.kept.get(key);
  }

  /** A mask, Float32Array of 0 to 1. rows: of the concepts; everything else is named as the node's widgets are. */
  mask({ rows, method, threshold, grow, feather, fill_holes, min_area, invert, refine }) {
    const { height, width } = this;
    const refining = Boolean(refine && this.guide);
    if (method === "soft") {
      const soft = most(rows.map((row) => this.map(row, refining))).map((value) => (value < CRUMB ? 0 : value));
      return invert ? soft.map((value) => 1 - value) : soft;
    }
    const heeded = THRESHOLDED.includes(method) ? threshold : 0;
    let inside = this.latest("inside", `${rows} ${method} ${heeded} ${refining}`, () => {
      const found = this.inside(rows, method, heeded, refining);
      return refining ? withoutSpecks(found, height, width) : found;
    });
    inside = this.latest("shape", `${this.latestKey("inside")} ${min_area} ${fill_holes} ${grow}`, () => {
      let shape = inside;
      if (min_area > 0) shape = large(shape, height, width, min_area);
      if (fill_holes) shape = filled(shape, height, width);
      if (grow > 0) shape = grown(shape, height, width, grow);
      if (grow < 0) shape = inverted(grown(inverted(shape), height, width, -grow));
      return shape;
    });
    if (invert) inside = inverted(inside);
    return feather > 0 ? feathered(inside, height, width, feather, CRUMB) : new Float32Array(inside);
  }

  /** As keep, but only the last one: what a slider changes would fill the memory. */
  latest(name, key, make) {
    if (this.latestKey(name) !== key) this.kept.set(name, { key, value: make() });
    return this.kept.get(name).value;
  }

  latestKey(name) {
    return this.kept.get(name)?.key;
  }

  /** A concept's map on the picture's pixels. */
  map(row, refining) {
    return this.keep(`map ${row} ${refining}`, () =>
      refining ? this.guide.refined(this.map(row, false)) : this.maps.enlarged(0, this.picture, [row]));
  }

  /** A concept's map against the rivals that prevail, as core/masks.py's against_prevailing makes it, on the picture's pixels. */
  prevailing(row, refining) {
    return this.keep(`prevailing ${row} ${refining}`, () => {
      if (refining) return this.guide.refined(this.prevailing(row, false));
      const { maps, picture } = this;
      const contrast = maps.names.map((_, other) => maps.plane(0, picture, other)).slice(maps.concepts.length);
      const shares = contrast.map((plane) => plane.reduce((sum, level) => sum + level, 0));
      const doubts = shares.map((share) => 1 - (share / Math.max(...shares, 1e-9)) ** 2);
      return maps.enlargedPlanes([Float32Array.from(maps.plane(0, picture, row), (level, i) => {
        const left = contrast.reduce((rest, plane, k) => rest - doubts[k] * plane[i], maps.top);
        return Math.min(1, Math.max(0, level / Math.max(left, 1e-6 * maps.top))) * maps.top;
      })]);
    });
  }

  /** The strongest of everything but `rows`, on the picture's pixels. */
  rival(rows, refining) {
    return this.keep(`rival ${rows} ${refining}`, () =>
      refining ? this.guide.refined(this.rival(rows, false)) : this.maps.enlarged(0, this.picture, this.others(rows)));
  }

  others(rows) {
    return this.maps.names.map((_, row) => row).filter((row) => !rows.includes(row));
  }

  inside(rows, method, threshold, refining) {
    if (method === "auto") return this.automatic(rows, refining);
    const out = new Uint8Array(this.height * this.width);
    if (method === "argmax") {
      const mine = this.keep(`strongest ${rows} ${refining}`, () => {
        const strongest = this.maps.enlarged(0, this.picture, rows);
        return refining ? this.guide.refined(strongest) : strongest;
      });
      const theirs = this.rival(rows, refining);
      for (let i = 0; i < out.length; i++) if (mine[i] > theirs[i]) out[i] = 1;
      return out;
    }
    for (const row of rows) {
      const map = this.map(row, refining);
      const limit = this.limit(row, method, threshold, refining);
      for (let i = 0; i < out.length; i++) if (map[i] > limit) out[i] = 1;
    }
    return out;
  }

  /** Islands of that map above Otsu's threshold in which the concept beats every rival somewhere, if it is there at all. */
  automatic(rows, refining) {
    const { height, width, maps, picture } = this;
    const out = new Uint8Array(height * width);
    const others = this.others(rows).map((row) => maps.plane(0, picture, row));
    const rival = this.rival(rows, false);
    for (const row of rows) {
      const plane = maps.plane(0, picture, row);
      const beats = (level, i) => (others.length ? others.every((other) => level > other[i]) : level > 0);
      if (plane.filter(beats).length / plane.length < THERE) continue;
      const [map, own] = [this.prevailing(row, refining), this.map(row, false)];
      const limit = this.keep(`auto ${row} ${refining}`, () => otsu(map));
      const flat = map.every((value) => value === map[0]);
      const above = new Uint8Array(map.length);
      for (let i = 0; i < map.length; i++) if (flat || map[i] > limit) above[i] = 1;
      const { labels, sizes } = islands(above, height, width);
      const wins = new Uint8Array(sizes.length);
      for (let i = 0; i < own.length; i++) if (own[i] > rival[i]) wins[labels[i]] = 1;
      for (let i = 0; i < out.length; i++) if (labels[i] && wins[labels[i]]) out[i] = 1;
    }
    return out;
  }

  limit(row, method, threshold, refining) {
    const map = this.map(row, refining);
    if (method === "absolute") return Math.fround(threshold);
    if (method === "percentile") {
      const sorted = this.keep(`sorted ${row} ${refining}`, () => map.slice().sort());
      const place = threshold * (sorted.length - 1);
      const below = Math.floor(place);
      const above = Math.min(sorted.length - 1, below + 1);
      return Math.fround(sorted[below] + (sorted[above] - sorted[below]) * (place - below));
    }
    return this.keep(`${method} ${row} ${refining}`, () => (method === "mean" ? map.reduce((a, b) => a + b, 0) / map.length : otsu(map)));
  }
}

function most(maps) {
  return maps.length === 1 ? maps[0] : maps[0].map((value, i) => maps.reduce((strongest, map) => Math.max(strongest, map[i]), value));
}

function withoutSpecks(mask, height, width) {
  const least = SPECK * mask.length;
  return inverted(large(inverted(large(mask, height, width, least)), height, width, least));
}

/** Otsu's threshold as kornia finds it: the largest value of the darker class. */
export function otsu(map) {
  let low = map[0];
  let high = map[0];
  for (let i = 0; i < map.length; i++) {
    if (map[i] < low) low = map[i];
    else if (map[i] > high) high = map[i];
  }
  if (low === high) return low;
  const width = Math.fround(high - low);
  const bin = (value) => Math.min(BINS - 1, Math.trunc(Math.fround((Math.fround(value - low) * BINS) / width)));
  const counts = new Float64Array(BINS);
  for (let i = 0; i < map.length; i++) counts[bin(map[i])]++;
  const total = counts.reduce((sum, count, i) => sum + count * i, 0);
  let [best, split, dark, darkSum] = [-1, 0, 0, 0];
  for (let i = 0; i < BINS - 1; i++) {
    dark += counts[i];
    darkSum += counts[i] * i;
    const bright = map.length - dark;
    if (!counts[i] || !dark || !bright) continue;
    const variance = dark * bright * (darkSum / dark - (total - darkSum) / bright) ** 2;
    if (variance > best) [best, split] = [variance, i];
  }
  let limit = low;
  for (let i = 0; i < map.length; i++) if (map[i] > limit && bin(map[i]) <= split) limit = map[i];
  return limit;
}
