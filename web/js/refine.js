/** Maps whose edges follow the picture's: the fast guided filter (He and Sun 2015), by the rules of core/masks.py and kornia. */

import { places } from "./maps.js";

const [REACH, FINENESS, EPSILON] = [2, 8, 1e-3]; // core/masks.py

/** A picture to guide with. pixels: RGBA bytes, height x width x 4. token: pixels that one value of the maps covered. */
export class Guide {
  constructor(pixels, height, width, token) {
    Object.assign(this, { pixels, height, width });
    this.step = Math.max(1, even(( REACH * token) / FINENESS));
    this.radius = Math.max(1, even((REACH * token) / this.step)); // in steps
    this.tooSmall = Math.min(height, width) <= 2 * this.step * this.radius;
    this.rows = Math.ceil(height / this.step);
    this.columns = Math.ceil(width / this.step);
    if (this.tooSmall) return;
    this.colours = [0, 1, 2].map((c) => this.sampled((i) => pixels[4 * i + c] / 255));
    this.means = this.colours.map((colour) => this.blurred(colour));
    this.inverse = this.inverses();
  }

  /** Every step-th pixel. */
  sampled(value) {
    const out = new Float64Array(this.rows * this.columns);
    for (let y = 0, i = 0; y < this.rows; y++) {
      for (let x = 0; x < this.columns; x++, i++) out[i] = value(y * this.step * this.width + x * this.step);
    }
    return out;
  }

  /** The mean of the box about each sample; the outermost ones go on beyond the frame. */
  blurred(values) {
    const pass = (from, lines, length, line, step) => {
      const out = new Float64Array(from.length);
      const size = 2 * this.radius + 1;
      for (let l = 0; l < lines; l++) {
        const at = (k) => from[l * line + Math.min(length - 1, Math.max(0, k)) * step];
        let sum = 0;
        for (let k = -this.radius; k <= this.radius; k++) sum += at(k);
        for (let k = 0; k < length; k++) {
          out[l * line + k * step] = sum / size;
          sum += at(k + this.radius + 1) - at(k - this.radius);
        }
      }
      return out;
    };
    return pass(pass(values, this.rows, this.columns, this.columns, 1), this.columns, this.rows, 1, this.columns);
  }

  /** Of each box the inverse of the colours' covariance, with EPSILON on its diagonal: six numbers, as it is symmetric. */
  inverses() {
    const covariance = (a, b) => {
      const product = this.blurred(this.colours[a].map((value, i) => value * this.colours[b][i]));
      return product.map((value, i) => value - this.means[a][i] * this.means[b][i] + (a === b ? EPSILON : 0));
    };
    const [rr, rg, rb, gg, gb, bb] = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]].map(([a, b]) => covariance(a, b));
    const out = [0, 1, 2, 3, 4, 5].map(() => new Float64Array(rr.length));
    for (let i = 0; i < rr.length; i++) {
      const cofactors = [gg[i] * bb[i] - gb[i] ** 2, rb[i] * gb[i] - rg[i] * bb[i], rg[i] * gb[i] - rb[i] * gg[i],
        rr[i] * bb[i] - rb[i] ** 2, rb[i] * rg[i] - rr[i] * gb[i], rr[i] * gg[i] - rg[i] ** 2];
      const determinant = rr[i] * cofactors[0] + rg[i] * cofactors[1] + rb[i] * cofactors[2];
      cofactors.forEach((cofactor, k) => (out[k][i] = cofactor / determinant));
    }
    return out;
  }

  /** A map on the picture's pixels -> the same with the picture's edges. */
  refined(map) {
    if (this.tooSmall) return map;
    const sampled = this.sampled((i) => map[i]);
    const mean = this.blurred(sampled);
    const covariances = this.colours.map((colour, c) => this.blurred(colour.map((value, i) => value * sampled[i]))
      .map((value, i) => value - this.means[c][i] * mean[i]));
    const rows = [[0, 1, 2], [1, 3, 4], [2, 4, 5]];
    const slopes = rows.map((row) => mean.map((_, i) => row.reduce((sum, k, c) => sum + this.inverse[k][i] * covariances[c][i], 0)));
    const offset = mean.map((value, i) => value - slopes.reduce((sum, slope, c) => sum + slope[i] * this.means[c][i], 0));
    return this.applied([...slopes, offset].map((values) => this.blurred(values)));
  }

  /** The slopes and the offset, enlarged to the picture's pixels and applied to them. */
  applied(smooth) {
    const down = places(this.rows * this.step, 1, this.rows);
    const across = places(this.columns * this.step, 1, this.columns);
    const line = smooth.map(() => new Float64Array(this.columns));
    const out = new Float32Array(this.height * this.width);
    for (let y = 0, i = 0; y < this.height; y++) {
      const [above, below, weight] = [down.first[y] * this.columns, down.second[y] * this.columns, down.weight[y]];
      smooth.forEach((values, k) => {
        for (let x = 0; x < this.columns; x++) line[k][x] = values[above + x] * (1 - weight) + values[below + x] * weight;
      });
      const [red, green, blue, offset] = line;
      for (let x = 0; x < this.width; x++, i++) {
        const [l, r, w] = [across.first[x], across.second[x], across.weight[x]];
        const colour = red[l] * this.pixels[4 * i] + green[l] * this.pixels[4 * i + 1] + blue[l] * this.pixels[4 * i + 2];
        const next = red[r] * this.pixels[4 * i] + green[r] * this.pixels[4 * i + 1] + blue[r] * this.pixels[4 * i + 2];
        const value = ((1 - w) * colour + w * next) / 255 + (1 - w) * offset[l] + w * offset[r];
        out[i] = Math.min(1, Math.max(0, value));
      }
    }
    return out;
  }
}

/** Rounds halves to even, as Python does. */
function even(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
