/** What scipy.ndimage and kornia do to masks in core/masks.py, for masks as Uint8Array of 0 and 1, row by row. */

/** Number the islands of a mask (neighbours share a side): {labels: Int32Array, sizes: of each label, sizes[0] of what is outside}. */
export function islands(mask, height, width) {
  const labels = new Int32Array(mask.length);
  const stack = new Int32Array(mask.length);
  const sizes = [0];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start]) sizes[0]++;
    if (!mask[start] || labels[start]) continue;
    const label = sizes.length;
    let [depth, size] = [1, 0];
    stack[0] = start;
    labels[start] = label;
    while (depth) {
      const i = stack[--depth];
      const x = i % width;
      size++;
      if (x > 0 && mask[i - 1] && !labels[i - 1]) (labels[i - 1] = label), (stack[depth++] = i - 1);
      if (x < width - 1 && mask[i + 1] && !labels[i + 1]) (labels[i + 1] = label), (stack[depth++] = i + 1);
      if (i >= width && mask[i - width] && !labels[i - width]) (labels[i - width] = label), (stack[depth++] = i - width);
      if (i + width < mask.length && mask[i + width] && !labels[i + width]) (labels[i + width] = label), (stack[depth++] = i + width);
    }
    sizes.push(size);
  }
  return { labels, sizes };
}

/** The islands of at least so many pixels. */
export function large(mask, height, width, least) {
  const { labels, sizes } = islands(mask, height, width);
  const out = new Uint8Array(mask.length);
  for (let i = 0; i < out.length; i++) if (mask[i] && sizes[labels[i]] >= least) out[i] = 1;
  return out;
}

export function inverted(mask) {
  const out = new Uint8Array(mask.length);
  for (let i = 0; i < out.length; i++) out[i] = 1 - mask[i];
  return out;
}

/** Holes that the mask encloses are filled. */
export function filled(mask, height, width) {
  const { labels, sizes } = islands(inverted(mask), height, width);
  const open = new Uint8Array(sizes.length);
  for (let x = 0; x < width; x++) open[labels[x]] = open[labels[(height - 1) * width + x]] = 1;
  for (let y = 0; y < height; y++) open[labels[y * width]] = open[labels[y * width + width - 1]] = 1;
  return mask.map((inside, i) => (inside || !open[labels[i]] ? 1 : 0));
}

/** All pixels within `reach` of the mask: those whose Euclidean distance to it is at most that. */
export function grown(mask, height, width, reach) {
  const distance = new Int32Array(mask.length).fill(reach + 1); // to the nearest of the mask in the same column
  for (let x = 0; x < width; x++) {
    for (let y = 0, i = x, far = reach + 1; y < height; y++, i += width) distance[i] = far = mask[i] ? 0 : Math.min(far + 1, reach + 1);
    for (let y = height, i = x + (height - 1) * width, far = reach + 1; y > 0; y--, i -= width) {
      far = mask[i] ? 0 : far + 1;
      if (far < distance[i]) distance[i] = far;
    }
  }
  const out = new Uint8Array(mask.length);
  const half = Int32Array.from({ length: reach + 1 }, (_, d) => Math.floor(Math.sqrt(reach * reach - d * d)));
  const covered = new Int32Array(width + 1);
  for (let y = 0; y < height; y++) {
    covered.fill(0);
    for (let x = 0; x < width; x++) {
      const away = distance[y * width + x];
      if (away > reach) continue;
      covered[Math.max(0, x - half[away])]++;
      covered[Math.min(width, x + half[away] + 1)]--;
    }
    for (let x = 0, over = 0; x < width; x++) out[y * width + x] = (over += covered[x]) > 0 ? 1 : 0;
  }
  return out;
}

/** A Gaussian blur that ends `reach` pixels from the edge; the frame does not fade. Float32Array; what is less than `crumb` is 0. */
export function feathered(mask, height, width, reach, crumb) {
  const mixed = onTheEdge(mask, height, width, reach);
  const window = window1d(2 * reach + 1, reach / 3);
  const read = grownBox(mixed, height, width, reach); // by the second pass
  const out = blurred(blurred(mask, read, window, height, width, width, 1), mixed, window, width, height, 1, width);
  for (let i = 0; i < out.length; i++) if (out[i] < crumb || out[i] > 1 - crumb) out[i] = out[i] < crumb ? 0 : 1;
  return out;
}

/** Values blurred along lines by a window, where they are wanted. line, step: from one line, and from one value in it, to the next. */
function blurred(values, wanted, window, lines, length, line, step) {
  const out = new Float32Array(values);
  const half = window.length >> 1;
  const padded = new Float64Array(length + 2 * half); // continued beyond both ends
  for (let l = 0; l < lines; l++) {
    for (let k = 0; k < padded.length; k++) padded[k] = values[l * line + Math.min(length - 1, Math.max(0, k - half)) * step];
    for (let k = 0, i = l * line; k < length; k++, i += step) {
      if (!wanted[i]) continue;
      let sum = 0;
      for (let w = 0; w < window.length; w++) sum += window[w] * padded[k + w];
      out[i] = sum;
    }
  }
  return out;
}

/** Pixels with both 0 and 1 within a box of `reach` about them. */
function onTheEdge(mask, height, width, reach) {
  const near = grownBox(grownBox(mask, height, width, reach, true), height, width, reach);
  const far = grownBox(grownBox(inverted(mask), height, width, reach, true), height, width, reach);
  return near.map((inside, i) => (inside && far[i] ? 1 : 0));
}

/** All pixels of the same column, or of the same row if `across`, that lie within `reach` of the mask. */
export function grownBox(mask, height, width, reach, across = false) {
  const out = new Uint8Array(mask.length);
  const [lines, length, line, step] = across ? [height, width, width, 1] : [width, height, 1, width];
  for (let l = 0; l < lines; l++) {
    let count = 0;
    for (let k = -reach; k < length; k++) {
      if (k + reach < length) count += mask[l * line + (k + reach) * step];
      if (k - reach > 0) count -= mask[l * line + (k - reach - 1) * step];
      if (k >= 0 && count > 0) out[l * line + k * step] = 1;
    }
  }
  return out;
}

function window1d(size, sigma) {
  const weights = Float64Array.from({ length: size }, (_, i) => Math.exp(-((i - (size >> 1)) ** 2) / (2 * sigma * sigma)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}
