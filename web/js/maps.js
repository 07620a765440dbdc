/** The maps that a node sends: reads what core/explore.py writes, and enlarges them as core/saliency.py does. */

const ARRAYS = { U8: Uint8Array, F32: Float32Array };

/** A safetensors file -> its tensors {name: {shape, data}} and its metadata {name: text}. */
export function parse(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: metadata, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    tensors[name] = { shape, data: new ARRAYS[dtype](buffer.slice(8 + length + from, 8 + length + to)) };
  }
  return { tensors, metadata };
}

/** Maps of every moment, picture and row (concepts, then contrast concepts) on the token grid; moment 0 is the node's own result. */
export class Maps {
  constructor(buffer) {
    const { tensors, metadata } = parse(buffer);
    const about = JSON.parse(metadata.explorer);
    this.concepts = about.concepts;
    this.names = [...about.concepts, ...about.contrast];
    this.size = about.image_size; // pixels of the picture: height, width
    this.extent = about.extent; // pixels that the grid covers; it may reach beyond the picture
    this.progress = about.progress; // of each single step: moment 1 and on
    [this.moments, this.pictures, this.rows, this.height, this.width] = tensors.maps.shape;
    this.levels = tensors.maps.data;
    this.top = this.levels instanceof Uint8Array ? 255 : 1; // what stands for a share of 1
    // moment 0 in levels too, with what rounding took from it
    this.first = tensors.rest && Float32Array.from(tensors.rest.data, (rest, i) => this.levels[i] + (rest - 128) / 255);
    this.given = tensors.presence.data;
    this.colours = tensors.colours.data; // 256 x 3, the PNGs' own
    this.bytes = buffer.byteLength;
  }

  /** One map as its levels, height x width. */
  plane(moment, picture, row) {
    const cells = this.height * this.width;
    const start = ((moment * this.pictures + picture) * this.rows + row) * cells;
    return (moment === 0 && this.first ? this.first : this.levels).subarray(start, start + cells);
  }

  /** The share, 0 to 1, of a row in one patch. */
  share(moment, picture, row, y, x) {
    return this.plane(moment, picture, row)[y * this.width + x] / this.top;
  }

  /** How surely a concept is in the picture: of a single step the mean of the strongest 2% of its map, as in core/saliency.py. */
  presence(moment, picture, row) {
    if (moment === 0) return this.given[picture * this.concepts.length + row];
    const sorted = this.plane(moment, picture, row).slice().sort();
    const strongest = sorted.subarray(sorted.length - Math.max(1, Math.round(sorted.length * 0.02)));
    return strongest.reduce((sum, level) => sum + level, 0) / strongest.length / this.top;
  }

  /** The patch {y, x} at a place of the picture that is given as shares of its height and width. */
  patch(down, across) {
    const cell = (share, axis, cells) => {
      const place = Math.floor((share * this.size[axis] * cells) / this.extent[axis]);
      return Math.min(cells - 1, Math.max(0, place));
    };
    return { y: cell(down, 0, this.height), x: cell(across, 1, this.width) };
  }

  /** What part of the picture a patch covers, as shares of its sides: {top, left, height, width}. */
  outline({ y, x }) {
    const [height, width] = [this.extent[0] / this.size[0] / this.height, this.extent[1] / this.size[1] / this.width];
    return { top: y * height, left: x * width, height, width };
  }

  /** The concept that has most of a patch, of those that are asked for. */
  strongest(moment, picture, { y, x }) {
    const shares = this.concepts.map((_, row) => this.share(moment, picture, row, y, x));
    return shares.indexOf(Math.max(...shares));
  }

  /** How many of the picture's pixels a patch covers, the mean of both sides. */
  token() {
    return (this.extent[0] / this.height + this.extent[1] / this.width) / 2;
  }

  /**
   * The strongest of some rows, 0 to 1, on a raster of height x width over the picture, bilinear: Float32Array. Of the picture's own
   * size: its pixels.
   */
  enlarged(moment, picture, rows, height = this.size[0], width = this.size[1]) {
    return this.enlargedPlanes(rows.map((row) => this.plane(moment, picture, row)), height, width);
  }

  /** The same of planes of levels, whoever made them. */
  enlargedPlanes(planes, height = this.size[0], width = this.size[1]) {
    const down = places(height, this.size[0] / this.extent[0], this.height);
    const { first, second, weight } = places(width, this.size[1] / this.extent[1], this.width);
    const line = new Float64Array(this.width);
    const out = new Float32Array(height * width);
    for (const plane of planes) {
      for (let y = 0; y < height; y++) {
        const above = down.first[y] * this.width;
        const below = down.second[y] * this.width;
        const share = down.weight[y];
        for (let x = 0; x < this.width; x++) line[x] = (plane[above + x] * (1 - share) + plane[below + x] * share) / this.top;
        for (let x = 0, i = y * width; x < width; x++, i++) {
          const value = line[first[x]] * (1 - weight[x]) + line[second[x]] * weight[x];
          if (value > out[i]) out[i] = value;
        }
      }
    }
    return out;
  }
}

/** Between which two of `cells` each of `count` samples over a `share` of them lies, and how near to the second. */
export function places(count, share, cells) {
  const first = new Int32Array(count);
  const second = new Int32Array(count);
  const weight = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const place = Math.max(0, ((i + 0.5) * share * cells) / count - 0.5);
    first[i] = Math.min(cells - 1, Math.floor(place));
    second[i] = Math.min(cells - 1, first[i] + 1);
    weight[i] = place - first[i];
  }
  return { first, second, weight };
}
