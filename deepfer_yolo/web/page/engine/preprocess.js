// From any image to a model's input, bit for bit as deepfer_yolo/runtime/preprocess.py does it with Pillow 13.
// A "plane image" is {width, height, channels: 1 or 3, data: Uint8Array}, channels side by side.

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** An image with four bytes a pixel as one of three channels, alpha dropped, or as its luma. */
export function planesOf(image, colour) {
  const { width, height, data } = image;
  const n = width * height;
  if (colour === "grey") {
    const grey = new Uint8Array(n);
    for (let i = 0, at = 0; i < n; i += 1, at += 4) {
      // ITU-R 601 in Pillow's integers.
      grey[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
    }
    return { width, height, channels: 1, data: grey };
  }
  const rgb = new Uint8Array(n * 3);
  for (let i = 0, from = 0, to = 0; i < n; i += 1, from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { width, height, channels: 3, data: rgb };
}

/** One image with four bytes a pixel as the model of `spec` wants it: size × size × 3 bytes, into `target`. */
export function toInput(image, spec, target) {
  let work = planesOf(image, spec.colour);
  const shorter = Math.min(work.width, work.height);
  if (spec.native_px !== null && shorter > spec.native_px) {
    work = resize(work, ...fittedSides(work.width, work.height, spec.native_px));
  }
  work = resize(work, ...fittedSides(work.width, work.height, spec.size));
  const left = roundHalfEven((work.width - spec.size) / 2);
  const top = roundHalfEven((work.height - spec.size) / 2);
  let to = 0;
  for (let y = 0; y < spec.size; y += 1) {
    let from = ((top + y) * work.width + left) * work.channels;
    for (let x = 0; x < spec.size; x += 1, from += work.channels, to += 3) {
      target[to] = work.data[from];
      target[to + 1] = work.data[from + (work.channels === 3 ? 1 : 0)];
      target[to + 2] = work.data[from + (work.channels === 3 ? 2 : 0)];
    }
  }
}

/** Width and height at which the shorter side is `size`, the longer one rounded down. */
function fittedSides(width, height, size) {
  return width <= height
    ? [size, Math.trunc((size * height) / width)]
    : [Math.trunc((size * width) / height), size];
}

/** The nearest whole number; of two as near the even one, as Python's round. */
export function roundHalfEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}

/** Pillow's bilinear filter with antialias: 8 bits between the two passes. */
export function resize(image, width, height) {
  const gone = image.height - height;
  // Pillow 13 resizes first along the side that is shortened more, by this rule; older ones always along the rows.
  const columnsFirst = gone > 0 && gone > 2 * (image.width - width);
  let work = columnsFirst ? resizeColumns(image, height) : resizeRows(image, width);
  work = columnsFirst ? resizeRows(work, width) : resizeColumns(work, height);
  return work;
}

function resizeRows(image, width) {
  if (width === image.width) return image;
  const { channels, data, height } = image;
  const { starts, counts, weights, most } = filterOf(image.width, width);
  const out = new Uint8Array(width * height * channels);
  let to = 0;
  for (let y = 0; y < height; y += 1) {
    const row = y * image.width * channels;
    for (let x = 0; x < width; x += 1) {
      const first = x * most;
      for (let c = 0; c < channels; c += 1, to += 1) {
        let sum = HALF;
        let from = row + starts[x] * channels + c;
        for (let i = 0; i < counts[x]; i += 1, from += channels) sum += data[from] * weights[first + i];
        out[to] = sum >> PRECISION_BITS;
      }
    }
  }
  return { width, height, channels, data: out };
}

function resizeColumns(image, height) {
  if (height === image.height) return image;
  const { width, channels, data } = image;
  const length = width * channels;
  const { starts, counts, weights, most } = filterOf(image.height, height);
  const out = new Uint8Array(length * height);
  const sums = new Int32Array(length);
  for (let y = 0; y < height; y += 1) {
    sums.fill(HALF);
    for (let i = 0; i < counts[y]; i += 1) {
      const weight = weights[y * most + i];
      const from = (starts[y] + i) * length;
      for (let x = 0; x < length; x += 1) sums[x] += data[from + x] * weight;
    }
    for (let x = 0, to = y * length; x < length; x += 1, to += 1) out[to] = sums[x] >> PRECISION_BITS;
  }
  return { width, height, channels, data: out };
}

/** The weights of each output position, whole numbers of 22 bits. */
function filterOf(size, newSize) {
  const scale = size / newSize;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(newSize);
  const counts = new Int32Array(newSize);
  const weights = new Int32Array(newSize * most);
  const exact = new Float64Array(most);
  for (let position = 0; position < newSize; position += 1) {
    const centre = (position + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(size, Math.trunc(centre + support + 0.5)) - start;
    let sum = 0;
    for (let i = 0; i < count; i += 1) {
      exact[i] = Math.max(0, 1 - Math.abs((i + start - centre + 0.5) * (1 / support)));
      sum += exact[i];
    }
    for (let i = 0; i < count; i += 1) {
      weights[position * most + i] = Math.trunc(0.5 + (sum === 0 ? exact[i] : exact[i] / sum) * (1 << PRECISION_BITS));
    }
    starts[position] = start;
    counts[position] = count;
  }
  return { starts, counts, weights, most };
}
